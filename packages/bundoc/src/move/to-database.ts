import { join } from 'node:path';
import { PROJECT_FILE } from '@bundoc/shared/contract/project-file';
import type { MoveMark } from '../project/move-mark.ts';
import { putAwayMoved, readMoveMark } from '../project/project-folder.ts';
import type { Disk } from '../storage/embedded/disk.ts';
import type { Connections } from '../storage/postgres/database.ts';
import { FolderSource, type FolderSourceOptions } from './folder-source.ts';
import { IncomingRows, openRows, reserveRows } from './incoming-rows.ts';
import { MoveFailed, type MoveLimits, type MoveWatch, moveProject } from './move-project.ts';
import { newMoveMark } from './to-folder.ts';

export interface MoveToDatabase {
  readonly project: string;
  /** The project's folder. */
  readonly directory: string;
  /** Where its content goes in the end: a folder that is made below an existing one, on the same file system. */
  readonly keptIn: string;
  readonly disk: Disk;
  readonly database: Connections;
  readonly source: Pick<FolderSourceOptions, 'withOpen'> & {
    /** As that of {@link FolderSourceOptions}; it marks the folder with `mark`. */
    readonly switchOver: (
      mark: MoveMark,
      ...args: Parameters<FolderSourceOptions['switchOver']>
    ) => Promise<void>;
  };
}

/**
 * Moves a project out of its folder, in which it may be in use until it changes hands, into PostgreSQL. Cut short at any moment, it is gone on with when it
 * is called again; nobody else may call it for the same folder.
 *
 * @returns where what was in the folder is kept.
 * @throws MoveFailed.
 */
export async function moveToDatabase(
  places: MoveToDatabase,
  watch: MoveWatch,
  limits?: MoveLimits,
): Promise<string> {
  const { project, directory, keptIn, disk, database } = places;
  let mark = await readMoveMark(disk, project, directory);
  if (mark?.state === 'incoming')
    throw new MoveFailed(`${project} is being brought into ${directory}: finish that move`);
  if (mark === undefined) {
    const incoming = await reserveRows(database, project, newMoveMark(project));
    const moved: MoveMark = { ...incoming, state: 'moved' };
    const source = new FolderSource({
      withOpen: places.source.withOpen,
      switchOver: (action) => places.source.switchOver(moved, action),
    });
    const target = new IncomingRows({ project, database, cipher: () => source.cipher });
    await moveProject(source, target, watch, limits);
    mark = moved;
  }
  // It has changed hands. Without its file everything was done before, and the content put away.
  const file = await disk.read(join(directory, PROJECT_FILE));
  if (file !== undefined) await openRows(database, { ...mark, state: 'incoming' }, file.toString());
  return putAwayMoved(disk, directory, keptIn, mark);
}
