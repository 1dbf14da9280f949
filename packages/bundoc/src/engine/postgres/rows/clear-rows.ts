import { loggable, type MarkedPlace } from '../../moves/set-aside.ts';
import type { Connections, Transaction } from '../database/database.ts';
import { removeRows, unfenceRows } from './fence.ts';
import { type FileRow, lockRow, readFileRow } from './file-row.ts';

/**
 * Removes the mark from a row without a project. @returns the content of the row afterwards. @throws AppError
 * of the database.
 */
export async function clearRows(database: Connections, place: MarkedPlace): Promise<FileRow> {
  const { project, isLeftOver, onSetAside } = place;
  const row = await readFileRow(database, project);
  const { text, marker } = row;
  if (marker === undefined) return row;
  if (await isLeftOver(marker, text !== undefined)) {
    const transact = <T>(action: (transaction: Transaction) => Promise<T>) =>
      database.transaction('', async (transaction) =>
        (await lockRow(transaction, project))?.marker === marker ? action(transaction) : undefined,
      );
    await removeRows(transact, project, marker);
    await unfenceRows(database, project, marker);
  } else if (text === undefined && (await unfenceRows(database, project, marker)))
    onSetAside({ project, text: loggable(marker) });
  return readFileRow(database, project);
}
