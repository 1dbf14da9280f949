import type { Connections, Statement, Transaction } from './database.ts';
import { changeMarker } from './file-row.ts';

const FENCE: Statement = {
  name: 'bundoc-fence-head-1',
  text: `WITH head AS (DELETE FROM bundoc.heads WHERE project = $1 RETURNING *) INSERT INTO bundoc.fenced_heads SELECT * FROM head`,
};
const UNFENCE: Statement = {
  name: 'bundoc-unfence-head-1',
  text: `WITH head AS (DELETE FROM bundoc.fenced_heads WHERE project = $1 RETURNING *) INSERT INTO bundoc.heads SELECT * FROM head`,
};

/**
 * Puts a mark beside a project's file and its head out of reach: from the end of the transaction on, no node commits to the project or reads from it. The
 * transaction holds the lock of the file's row, then that of the head.
 *
 * @returns false when there is another mark.
 */
export async function fenceRows(transaction: Transaction, project: string, mark: string): Promise<boolean> {
  if (!(await changeMarker(transaction, project, mark, undefined))) return false;
  await transaction.query(FENCE, [project]);
  return true;
}

/** Takes the mark away, and brings the head back. @returns false where another mark stands, or none: nothing has changed then. */
export async function unfenceRows(database: Connections, project: string, mark: string): Promise<boolean> {
  const isChanged = await database.transaction('', async (transaction) => {
    if (!(await changeMarker(transaction, project, undefined, mark))) return undefined;
    await transaction.query(UNFENCE, [project]);
    return true;
  });
  return isChanged === true;
}
