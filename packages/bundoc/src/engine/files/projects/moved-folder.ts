import { join } from 'node:path';
import { hasCode } from '@bundoc/shared/contract/app-error';
import { MOVE_FILE } from '@bundoc/shared/contract/project-file';
import { MOVE_MARK_BYTES_MAX } from '../../moves/move-mark.ts';
import { type Disk, makeDirectoryDurably, replaceFile } from '../disk/disk.ts';

/** The folder for the content of moved projects, below the data folder. The service ignores it. */
export const MOVED_FOLDER = 'moved';

/**
 * @param directory the project's folder.
 *
 * @returns an empty text for an entry that cannot be a mark: a link, a pipe, a huge file.
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
 * Writes the mark into the folder, durably and atomically.
 *
 * @param tmp an existing folder on the same file system.
 */
export async function writeMoveMark(disk: Disk, tmp: string, directory: string, mark: string): Promise<void> {
  await replaceFile(disk, tmp, join(directory, MOVE_FILE), Buffer.from(mark));
}

/** Removes the mark durably. Idempotent. */
export async function removeMoveMark(disk: Disk, directory: string): Promise<void> {
  await disk.remove(join(directory, MOVE_FILE));
  await disk.syncDirectory(directory);
}

/**
 * Moves the content of a project that another storage holds into a folder that the service ignores; the mark
 * stays. Idempotent.
 *
 * @param keptIn a folder on the same file system; it is created below an existing one.
 * @param kept the name of the folder in it.
 */
export async function setMovedAside(
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
