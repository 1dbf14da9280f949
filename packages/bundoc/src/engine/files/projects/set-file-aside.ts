import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { MarkSetAside } from '../../set-aside.ts';
import { type Disk, makeDirectoryDurably } from '../disk/disk.ts';

/**
 * Takes a mark out of the folder of a project, durably, without reading it.
 *
 * @param folder where it goes; it is made below an existing one, on the same file system.
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
