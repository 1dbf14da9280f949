import { AppError } from '@bundoc/shared/contract/app-error';
import { OutcomeUnknown } from '../../errors.ts';
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
 * What is done before the fence takes its time; writers get an answer to come back after as long as a
 * statement may take. A mover that lost its power or its network is found out by the server's TCP within half
 * a minute, and one that hangs, after ten minutes: then its locks are free.
 */
const NO_HURRY = `SET LOCAL idle_in_transaction_session_timeout = '10min'; SET LOCAL tcp_user_timeout = '30s';
  SET LOCAL tcp_keepalives_idle = 10; SET LOCAL tcp_keepalives_interval = 5; SET LOCAL tcp_keepalives_count = 4`;

/**
 * Runs `action` with the locks that every commit takes, then puts a mark beside the project's file and its
 * head out of reach: from then on, no node commits to the project or reads from it. If this process ends
 * before, nodes go on.
 *
 * @param action returns the mark; it may throw, and nothing has changed then. Told whether there is a
 * project.
 * @throws AppError `project_moving` where there is a mark already.
 */
export async function fenceRows(
  database: Connections,
  project: string,
  action: (transaction: Transaction, isThere: boolean) => Promise<string>,
): Promise<void> {
  let mark: string | undefined;
  try {
    // The file before the head, as anyone who brings in a new version of the key takes them.
    const locks = `SELECT FROM bundoc.projects WHERE project = '${project}' FOR UPDATE;${lockOf(project)}`;
    await database.transaction(`${NO_HURRY};${locks}`, async (transaction, begun) => {
      mark = await action(transaction, begun.at(-1)?.[0] !== undefined);
      // Of another move, or put there by somebody: it is judged when the project is opened again.
      if (!(await changeMarker(transaction, project, mark, undefined)))
        throw new AppError('project_moving', { retryAfterS: 2 });
      await transaction.query(FENCE, [project]);
      return true;
    });
  } catch (error) {
    if (!(error instanceof OutcomeUnknown)) throw error;
    // It held the row of the file: behind that lock its outcome stands.
    const row = await database.transaction('', (transaction) => lockRow(transaction, project));
    if (row?.marker !== mark) throw error;
  }
}

/** Puts the head out of reach, which the transaction has made. */
export async function fenceHead(transaction: Transaction, project: string): Promise<void> {
  await transaction.query(FENCE, [project]);
}

/**
 * Runs `action` in a transaction that alone sees the head of a project which is fenced. @returns undefined
 * when there is no such head.
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
 * Takes the mark away, and brings the head back. @returns false where another mark stands, or none: nothing
 * has changed then.
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
 * Removes all that the database has of a project, and leaves a mark, durably. The head goes first: without
 * one, no node commits to the project. May be done again.
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
