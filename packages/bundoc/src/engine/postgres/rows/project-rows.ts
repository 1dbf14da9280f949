import type { Position } from '../../port/port.ts';
import type { FoundHead } from '../../projects/projects.ts';
import type { Queryable, Statement, Transaction } from '../database/database.ts';

const INSERT_HEAD: Statement = {
  name: 'bundoc-insert-head-1',
  text: 'INSERT INTO bundoc.heads (project, key_version) VALUES ($1, $2) ON CONFLICT (project) DO NOTHING',
};
const DELETE_HEAD: Statement = {
  name: 'bundoc-delete-head-1',
  text: 'DELETE FROM bundoc.heads WHERE project = $1',
};
const ADD_VERSION: Statement = {
  name: 'bundoc-add-version-2',
  text: `INSERT INTO bundoc.key_versions (project, version, documents) VALUES ($1, $2, 0)
         ON CONFLICT (project, version) DO NOTHING`,
};
const RAISE_VERSION: Statement = {
  name: 'bundoc-raise-version-1',
  text: 'UPDATE bundoc.heads SET key_version = greatest(key_version, $2) WHERE project = $1',
};

/** The same in one statement, if there is no file yet. */
const MAKE: Statement = {
  name: 'bundoc-make-project-3',
  text: `
WITH made AS (
  INSERT INTO bundoc.projects (project, file) VALUES ($1, $2) ON CONFLICT (project) DO NOTHING RETURNING project
), head AS (
  INSERT INTO bundoc.heads (project, key_version, seq, purged_seq) SELECT project, $3, $4, $4 FROM made ON CONFLICT (project) DO NOTHING
), version AS (
  INSERT INTO bundoc.key_versions (project, version, documents) SELECT project, $3, 0 FROM made ON CONFLICT (project, version) DO NOTHING
)
SELECT FROM made`,
};

/**
 * All tables except that of the project's file. A worker adds runs and pages only while their index is there,
 * so that goes first.
 */
const TABLES = [
  'documents',
  'index_tokens',
  'indexes',
  'index_pages',
  'index_runs',
  'collections',
  'key_versions',
  'used_keys',
  'expiry',
  'heads',
  'fenced_heads',
];

/**
 * Locks a project; run it at the start of a transaction. Rows are only changed under this lock, which rules
 * out deadlocks.
 */
export function lockOf(project: string): string {
  return `SELECT seq FROM bundoc.heads WHERE project = '${project}' FOR UPDATE`;
}

/**
 * Maximum number of a project's rows that one transaction removes: more would delay others, and exceed the
 * time limit.
 */
const ROWS_AT_ONCE = 5_000;

/**
 * Removes everything of a project except its file, in several transactions. The caller makes sure that no
 * node can commit to it.
 */
export async function deleteContentRows(
  project: string,
  transact: (action: (transaction: Transaction) => Promise<number>) => Promise<number | undefined>,
): Promise<void> {
  for (const table of TABLES) {
    const removeSome: Statement = {
      name: `bundoc-remove-${table}-1`,
      text: `WITH gone AS (DELETE FROM bundoc.${table} WHERE ctid = ANY (ARRAY(
               SELECT ctid FROM bundoc.${table} WHERE project = $1 LIMIT ${ROWS_AT_ONCE})) RETURNING 1)
             SELECT count(*) FROM gone`,
    };
    for (;;) {
      const removed = await transact(async (transaction) => {
        const [row] = await transaction.query(removeSome, [project]);
        return Number(row?.[0] ?? 0);
      });
      if (removed === undefined || removed < ROWS_AT_ONCE) break;
    }
  }
}

/** Adds the rows of an empty project, without its file. Existing ones stay unchanged. */
export async function insertProjectRows(
  transaction: Transaction,
  project: string,
  keyVersion: number,
): Promise<void> {
  await transaction.query(INSERT_HEAD, [project, keyVersion]);
  await transaction.query(ADD_VERSION, [project, keyVersion]);
}

/**
 * Creates an empty project, durably, in one round trip.
 *
 * @param file its text.
 * @param seq the position that its first commit exceeds.
 * @returns the state of its new rows; undefined when there is already a file or a mark.
 */
export async function makeProject(
  queryable: Queryable,
  project: string,
  file: string,
  keyVersion: number,
  seq: Position,
): Promise<FoundHead | undefined> {
  const made = await queryable.query(MAKE, [project, file, keyVersion, seq]);
  if (made.length === 0) return undefined;
  return { seq, indexVersion: 0, documents: new Map(), collections: new Set() };
}

/** Without its head, no node commits to a project or reads from it. */
export async function deleteHead(transaction: Transaction, project: string): Promise<void> {
  await transaction.query(DELETE_HEAD, [project]);
}

/** Once the transaction has committed, every node seals under this version or a later one. */
export async function raiseKeyVersion(
  transaction: Transaction,
  project: string,
  keyVersion: number,
): Promise<void> {
  await transaction.query(RAISE_VERSION, [project, keyVersion]);
  await transaction.query(ADD_VERSION, [project, keyVersion]);
}
