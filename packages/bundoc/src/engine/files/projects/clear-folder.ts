import { randomUUID } from 'node:crypto';
import { DELETION_FILE, MOVE_FILE, PROJECT_FILE } from '@bundoc/shared/contract/project-file';
import type { MarkedPlace } from '../../moves/set-aside.ts';
import type { Disk } from '../disk/disk.ts';
import { readMoveMark, removeMoveMark, setMovedAside } from './moved-folder.ts';
import { setFileAside } from './set-file-aside.ts';

export interface MarkedFolder extends MarkedPlace {
  /** The project's folder. */
  readonly directory: string;
  readonly disk: Disk;
  /** The folder for what is left of a moved project. It is created below an existing folder. */
  readonly keptIn: string;
  /** The folder for other marks. It is created in the same way. */
  readonly setAside: string;
}

/**
 * Removes the marks from a folder without a project. Projects, and content without a mark, stay unchanged.
 */
export async function clearFolder(place: MarkedFolder): Promise<void> {
  const { project, directory, disk, keptIn, setAside, isLeftOver, onSetAside } = place;
  const names = (await disk.list(directory)) ?? [];
  const hasFile = names.includes(PROJECT_FILE);
  const mark = await readMoveMark(disk, directory);
  if (mark !== undefined && (await isLeftOver(mark, hasFile))) {
    await setMovedAside(disk, directory, keptIn, `${project}-${randomUUID()}`);
    await removeMoveMark(disk, directory);
  } else if (!hasFile)
    for (const name of [DELETION_FILE, MOVE_FILE])
      if (names.includes(name)) onSetAside(await setFileAside(disk, setAside, directory, name, project));
}
