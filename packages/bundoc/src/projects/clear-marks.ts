import { randomUUID } from 'node:crypto';
import { DELETION_FILE, MOVE_FILE, PROJECT_FILE } from '@bundoc/shared/contract/project-file';
import type { Disk } from '../engine/files/disk/disk.ts';
import { putAwayMoved, readMoveMark, removeMoveMark } from '../engine/files/projects/moved-folder.ts';
import type { Connections, Transaction } from '../engine/postgres/database/database.ts';
import { removeRows, unfenceRows } from '../engine/postgres/rows/fence.ts';
import { type FileRow, lockRow, readFileRow } from '../engine/postgres/rows/file-row.ts';
import { loggable, type OnSetAside, setFileAside } from '../engine/set-aside.ts';

/**
 * A place where a project is to be made whose key BunKMS has released: so no mark is true that says it was
 * deleted.
 */
interface MarkedPlace {
  readonly project: string;
  /** Whether the text of a mark is authentic, and what lies beside it is left over from a move. */
  readonly isLeftOver: (mark: string, hasFile: boolean) => Promise<boolean>;
  readonly onSetAside: OnSetAside;
}

export interface MarkedFolder extends MarkedPlace {
  /** The project's folder. */
  readonly directory: string;
  readonly disk: Disk;
  /** Where what is left over is kept: a folder that is made below an existing one. */
  readonly keptIn: string;
  /** Where other marks go: alike. */
  readonly setAside: string;
}

/** Takes marks out of a folder that has no project. A project, or content without a mark, stays as it is. */
export async function clearFolder(place: MarkedFolder): Promise<void> {
  const { project, directory, disk, keptIn, setAside, isLeftOver, onSetAside } = place;
  const names = (await disk.list(directory)) ?? [];
  const hasFile = names.includes(PROJECT_FILE);
  const mark = await readMoveMark(disk, directory);
  if (mark !== undefined && (await isLeftOver(mark, hasFile))) {
    await putAwayMoved(disk, directory, keptIn, `${project}-${randomUUID()}`);
    await removeMoveMark(disk, directory);
  } else if (!hasFile)
    for (const name of [DELETION_FILE, MOVE_FILE])
      if (names.includes(name)) onSetAside(await setFileAside(disk, setAside, directory, name, project));
}

/**
 * Takes the mark out of a row that has no project. @returns what there is then. @throws AppError of the
 * database.
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
