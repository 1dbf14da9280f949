import { AppError } from '@bundoc/shared/contract/app-error';
import { OutcomeUnknown } from '../../port/errors.ts';
import type { Connections, Statement, Transaction } from '../database/database.ts';
import { changeMarker, leaveMarker, lockRow } from './file-row.ts';
import { deleteContentRows, deleteHead, lockOf } from './project-rows.ts';

const FENCE: Statement = {
  name: 'bundoc-fence-head-1',
  text: `WITH head AS (DELETE FROM bundoc.heads WHERE project = $1 RETURNING *) INSERT INTO bundoc.fenced_heads SELECT * FROM head RETURNING 1`,
};
const UNFENCE: Statement = {
  name: 'bundoc-unfence-head-2',
  text: `WITH head AS (DELETE FROM bundoc.fenced_heads WHERE project = $1 RETURNING *)
         INSERT INTO bundoc.heads SELECT * FROM head ON CONFLICT (project) DO NOTHING RETURNING 1`,
};
/**
 * Timeouts while a fence is held, which may take long; blocked writers get an error with a time to retry
 * after a statement's time limit. The server's TCP detects a mover without power or network within half a
 * minute, and its timeout ends one that hangs after ten minutes. Both free the locks.
 */
const FENCE_TIMEOUTS = `SET LOCAL idle_in_transaction_session_timeout = '10min'; SET LOCAL tcp_user_timeout = '30s';
  SET LOCAL tcp_keepalives_idle = 10; SET LOCAL tcp_keepalives_interval = 5; SET LOCAL tcp_keepalives_count = 4`;

/**
 * Runs `action` with the locks that every commit takes, then writes a mark beside the project's file and
 * hides its head. From then on, no node commits to the project or reads from it. If this process ends
 * earlier, nodes continue.
 *
 * @param action receives whether the project exists, and returns the mark; if it throws, nothing has changed.
 * @throws AppError `project_moving` where a mark already exists.
 */
export async function fenceRows(
  database: Connections,
  project: string,
  action: (transaction: Transaction, isThere: boolean) => Promise<string>,
): Promise<void> {
  let mark: string | undefined;
  try {
    // First the file, then the head, in the order in which nodes lock them to add a key version.
    const locks = `SELECT FROM bundoc.projects WHERE project = '${project}' FOR UPDATE;${lockOf(project)}`;
    await database.transaction(`${FENCE_TIMEOUTS};${locks}`, async (transaction, begun) => {
      mark = await action(transaction, begun.at(-1)?.[0] !== undefined);
      // The mark belongs to another move or is forged: it is judged when the project is reopened.
      if (!(await changeMarker(transaction, project, mark, undefined)))
        throw new AppError('project_moving', { retryAfterS: 2 });
      await transaction.query(FENCE, [project]);
      return true;
    });
  } catch (error) {
    if (!(error instanceof OutcomeUnknown)) throw error;
    // The transaction held the lock of the file's row, so after that lock its outcome is final.
    const row = await database.transaction('', (transaction) => lockRow(transaction, project));
    if (row?.marker !== mark) throw error;
  }
}

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
    if (!(await changeMarker(transaction, project, undefined, mark))) return undefined;
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
