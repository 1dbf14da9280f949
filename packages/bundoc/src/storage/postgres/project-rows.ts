import type { Statement, Transaction } from './database.ts';

const INSERT_HEAD: Statement = {
  name: 'bundoc-insert-head-1',
  text: 'INSERT INTO bundoc.heads (project, key_version) VALUES ($1, $2) ON CONFLICT (project) DO NOTHING',
};
const ADD_VERSION: Statement = {
  name: 'bundoc-add-version-1',
  text: `INSERT INTO bundoc.key_versions (project, version, seals, documents) VALUES ($1, $2, 0, 0)
         ON CONFLICT (project, version) DO NOTHING`,
};
const RAISE_VERSION: Statement = {
  name: 'bundoc-raise-version-1',
  text: 'UPDATE bundoc.heads SET key_version = greatest(key_version, $2) WHERE project = $1',
};

/** Adds what an empty project consists of beside its file. What is there stays. */
export async function insertProjectRows(
  transaction: Transaction,
  project: string,
  keyVersion: number,
): Promise<void> {
  await transaction.query(INSERT_HEAD, [project, keyVersion]);
  await transaction.query(ADD_VERSION, [project, keyVersion]);
}

/** From the end of the transaction on, every node seals under this version or a later one. */
export async function raiseKeyVersion(
  transaction: Transaction,
  project: string,
  keyVersion: number,
): Promise<void> {
  await transaction.query(RAISE_VERSION, [project, keyVersion]);
  await transaction.query(ADD_VERSION, [project, keyVersion]);
}
