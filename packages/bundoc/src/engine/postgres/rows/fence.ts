import type { Connections, Statement, Transaction } from '../database/database.ts';
import { leaveMarker, removeMarker } from './file-row.ts';
import { deleteContentRows, deleteHead } from './project-rows.ts';

const FENCE: Statement = {
  name: 'bundoc-fence-head-1',
  text: `WITH head AS (DELETE FROM bundoc.heads WHERE project = $1 RETURNING *) INSERT INTO bundoc.fenced_heads SELECT * FROM head RETURNING 1`,
};
const UNFENCE: Statement = {
  name: 'bundoc-unfence-head-2',
  text: `WITH head AS (DELETE FROM bundoc.fenced_heads WHERE project = $1 RETURNING *)
         INSERT INTO bundoc.heads SELECT * FROM head ON CONFLICT (project) DO NOTHING RETURNING 1`,
};

/** Hides the head that the transaction has created. */
export async function fenceHead(transaction: Transaction, project: string): Promise<void> {
  await transaction.query(FENCE, [project]);
}

/**
 * Runs `action` in a transaction that alone sees the head of a fenced project. @returns undefined when there
 * is no such head.
 */
export async function inFence<T>(
  transaction: Transaction,
  project: string,
  action: () => Promise<T>,
): Promise<T | undefined> {
  if ((await transaction.query(UNFENCE, [project])).length === 0) return undefined;
  const result = await action();
  await transaction.query(FENCE, [project]);
  return result;
}

/**
 * Removes the mark and restores the head. @returns false for another mark or none; then nothing has changed.
 */
export async function unfenceRows(database: Connections, project: string, mark: string): Promise<boolean> {
  const isChanged = await database.transaction('', async (transaction) => {
    if (!(await removeMarker(transaction, project, mark))) return undefined;
    await transaction.query(UNFENCE, [project]);
    return true;
  });
  return isChanged === true;
}

/**
 * Removes everything of a project from the database and leaves a mark, durably. The head is removed first:
 * without one, no node commits to the project. Idempotent.
 */
export async function removeRows(
  transact: <T>(action: (transaction: Transaction) => Promise<T>) => Promise<T | undefined>,
  project: string,
  mark: string,
): Promise<void> {
  await transact(async (transaction) => {
    await leaveMarker(transaction, project, mark);
    await deleteHead(transaction, project);
    return true;
  });
  await deleteContentRows(project, transact);
}
