import { join } from 'node:path';
import { hasCode } from '@bundoc/shared/contract/app-error';
import { DELETION_FILE, MOVE_FILE, PROJECT_FILE } from '@bundoc/shared/contract/project-file';
import { SMALL_FILE_BYTES_MAX } from '../project-file.ts';
import type { Disk } from './disk/disk.ts';

/** Writes `project.json`, without a sync. */
export async function writeProjectFile(disk: Disk, directory: string, content: Buffer): Promise<void> {
  const path = join(directory, PROJECT_FILE);
  const [failure] = await disk.writeFiles([{ path, content }]);
  if (failure !== undefined) throw failure;
}

/**
 * Writes the `project.json` of a birth unless one is there that can be parsed. A deleted or moved project
 * is not made again: opening it checks whether the mark is genuine.
 *
 * @returns names in the folder before.
 */
export async function writeIfMissing(
  disk: Disk,
  directory: string,
  projectFile: Buffer,
): Promise<readonly string[] | undefined> {
  const names = await disk.list(directory).catch((error: unknown) => {
    if (hasCode(error, 'project_damaged')) return undefined;
    throw error;
  });
  const isMarked = names?.some((name) => name === DELETION_FILE || name === MOVE_FILE) === true;
  if (!isMarked && !(await isProjectFile(disk, join(directory, PROJECT_FILE))))
    await writeProjectFile(disk, directory, projectFile);
  return names;
}

/** Whether nothing is in the place of a folder. */
export async function isRemoved(disk: Disk, directory: string): Promise<boolean> {
  try {
    return (await disk.list(directory)) === undefined;
  } catch {
    return false;
  }
}

/** Whether the file can be parsed. Then it is never replaced. */
async function isProjectFile(disk: Disk, path: string): Promise<boolean> {
  try {
    const content = await disk.read(path, SMALL_FILE_BYTES_MAX);
    return content !== undefined && typeof JSON.parse(content.toString()) === 'object';
  } catch (error) {
    if (error instanceof SyntaxError) return false;
    // A link or a pipe: opening the project reports it.
    if (hasCode(error, 'project_damaged')) return true;
    throw error;
  }
}
