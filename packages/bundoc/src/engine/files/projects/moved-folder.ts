import { join } from 'node:path';
import { hasCode } from '@bundoc/shared/contract/app-error';
import { MOVE_FILE } from '@bundoc/shared/contract/project-file';
import { MOVE_MARK_BYTES_MAX } from '../../move-mark.ts';
import { type Disk, makeDirectoryDurably, replaceFile } from '../disk/disk.ts';

/**
 * Where the content of projects is put that were moved away, below the data folder: out of the service's
 * sight.
 */
export const MOVED_FOLDER = 'moved';

/**
 * @param directory the project's folder.
 *
 * @returns the empty text for an entry that can be no mark: a link, a pipe, a huge file.
 */
export async function readMoveMark(disk: Disk, directory: string): Promise<string | undefined> {
  try {
    return (await disk.read(join(directory, MOVE_FILE), MOVE_MARK_BYTES_MAX))?.toString();
  } catch (error) {
    if (hasCode(error, 'project_damaged')) return '';
    throw error;
  }
}

/**
 * Puts the mark into the folder, durably and in one piece.
 *
 * @param tmp a folder on the same file system; exists.
 */
export async function writeMoveMark(disk: Disk, tmp: string, directory: string, mark: string): Promise<void> {
  await replaceFile(disk, tmp, join(directory, MOVE_FILE), Buffer.from(mark));
}

/** Takes the mark away, durably. May be done again. */
export async function removeMoveMark(disk: Disk, directory: string): Promise<void> {
  await disk.remove(join(directory, MOVE_FILE));
  await disk.syncDirectory(directory);
}

/**
 * Puts what is in the folder of a project that is held elsewhere into another one, out of the service's
 * sight; the mark stays. May be done again.
 *
 * @param keptIn a folder on the same file system; it is made below an existing one.
 * @param kept the folder in it.
 */
export async function putAwayMoved(
  disk: Disk,
  directory: string,
  keptIn: string,
  kept: string,
): Promise<void> {
  for (const path of [keptIn, join(keptIn, kept)]) await makeDirectoryDurably(disk, path);
  for (const name of (await disk.list(directory)) ?? [])
    if (name !== MOVE_FILE) await disk.rename(join(directory, name), join(keptIn, kept, name));
  for (const path of [join(keptIn, kept), directory]) await disk.syncDirectory(path);
}

/** Removes all that is in the folder of a project that is not here, but its mark. */
export async function emptyMarkedFolder(disk: Disk, directory: string): Promise<void> {
  for (const name of (await disk.list(directory)) ?? [])
    if (name !== MOVE_FILE) await disk.removeTree(join(directory, name));
  await disk.syncDirectory(directory);
}
