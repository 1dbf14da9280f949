import { join } from 'node:path';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import { DELETION_FILE, MOVE_FILE } from '@bundoc/shared/contract/project-file';
import {
  type Disk,
  makeDirectoryDurably,
  replaceFile,
  SMALL_FILE_BYTES_MAX,
} from '../storage/embedded/disk.ts';
import { parseDeletionMark, projectDestroyed } from './deletion-mark.ts';
import { formatMoveMark, type MoveMark, parseMoveMark } from './move-mark.ts';

const TMP = 'tmp';

/** @param directory the project's folder. */
export async function readMoveMark(
  disk: Disk,
  project: string,
  directory: string,
): Promise<MoveMark | undefined> {
  const content = await disk.read(join(directory, MOVE_FILE), SMALL_FILE_BYTES_MAX);
  return content && parseMoveMark(project, content.toString());
}

/** Puts the mark of a project that is not here into its folder, durably and in one piece. */
export async function markFolder(disk: Disk, directory: string, mark: MoveMark): Promise<void> {
  const tmp = join(directory, TMP);
  await disk.makeDirectory(tmp);
  await replaceFile(disk, tmp, join(directory, MOVE_FILE), Buffer.from(formatMoveMark(mark)));
}

/**
 * Marks a project as moved away: from then on it is not here. Nobody may have it open, or begin to delete it, meanwhile.
 *
 * @throws AppError `project_destroyed` for one whose deletion has begun: it must not come to life elsewhere.
 */
export async function markMoved(disk: Disk, directory: string, mark: MoveMark): Promise<void> {
  const deletion = await disk.read(join(directory, DELETION_FILE), SMALL_FILE_BYTES_MAX);
  if (deletion !== undefined) throw projectDestroyed(parseDeletionMark(mark.moving, deletion.toString()));
  await markFolder(disk, directory, mark);
}

/**
 * Puts what is in the folder of a project that was moved away into another one, out of the service's sight; the mark stays. May be done again.
 *
 * @param keptIn a folder on the same file system; it is made below an existing one.
 * @returns where the content is.
 */
export async function putAwayMoved(
  disk: Disk,
  directory: string,
  keptIn: string,
  { moving, move }: MoveMark,
): Promise<string> {
  const kept = join(keptIn, `${moving}-${move}`);
  for (const path of [keptIn, kept]) await makeDirectoryDurably(disk, path);
  await disk.removeTree(join(directory, TMP));
  for (const name of (await disk.list(directory)) ?? [])
    if (name !== MOVE_FILE) await disk.rename(join(directory, name), join(kept, name));
  for (const path of [kept, directory]) await disk.syncDirectory(path);
  return kept;
}

/** Removes all that is in the folder of a project that is not here, but its mark. */
export async function emptyMarkedFolder(disk: Disk, directory: string): Promise<void> {
  for (const name of (await disk.list(directory)) ?? [])
    if (name !== MOVE_FILE) await disk.removeTree(join(directory, name));
  await disk.syncDirectory(directory);
}

/** True once a project was moved away, while what was in its folder is still there: then the last steps of the move are missing. */
export async function isHalfMoved(disk: Disk, project: string, directory: string): Promise<boolean> {
  const mark = await readMoveMark(disk, project, directory);
  if (mark?.state !== 'moved') return false;
  return ((await disk.list(directory)) ?? []).some((name) => name !== MOVE_FILE && name !== TMP);
}

/** Projects that were moved away, and of whose moves the last steps are missing. @param directory of all projects. */
export async function halfMovedProjects(disk: Disk, directory: string): Promise<readonly string[]> {
  const found: string[] = [];
  for (const name of (await disk.list(directory)) ?? []) {
    if (projectIdSchema.safeParse(name).data !== name) continue;
    const isHalf = await isHalfMoved(disk, name, join(directory, name)).catch(() => false);
    if (isHalf) found.push(name);
  }
  return found;
}
