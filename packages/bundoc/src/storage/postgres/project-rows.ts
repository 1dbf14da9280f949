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

const TABLES = ['documents', 'collections', 'key_versions', 'used_keys', 'commits', 'heads', 'projects'];

/** Locks a project: to be run as a transaction begins. Rows are changed under this lock alone, so that nobody waits for one another in a ring. */
export function lockOf(project: string): string {
  return `SELECT seq FROM bundoc.heads WHERE project = '${project}' FOR UPDATE`;
}

/** Removes all that the database has of a project, under its lock. */
export async function deleteProjectRows(transaction: Transaction, project: string): Promise<void> {
  for (const table of TABLES)
    await transaction.run(`DELETE FROM bundoc.${table} WHERE project = '${project}'`);
}

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
