import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { MarkSetAside } from '../../moves/set-aside.ts';
import { type Disk, makeDirectoryDurably } from '../disk/disk.ts';

/**
 * Moves a mark out of a project's folder, durably, without reading it.
 *
 * @param folder the target, on the same file system; it is created below an existing folder.
 * @param name of the mark in `directory`.
 */
export async function setFileAside(
  disk: Disk,
  folder: string,
  directory: string,
  name: string,
  project: string,
): Promise<MarkSetAside> {
  await makeDirectoryDurably(disk, folder);
  const file = `${project}-${randomBytes(6).toString('hex')}-${name}`;
  await disk.rename(join(directory, name), join(folder, file));
  for (const path of [folder, directory]) await disk.syncDirectory(path);
  return { project, file };
}
