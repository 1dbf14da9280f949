import { join } from 'node:path';
import { DELETION_FILE, PROJECT_FILE } from '@bundoc/shared/contract/project-file';
import { AppError } from '@bundoc/shared/errors';
import { type MoveMark, projectElsewhere } from '../project/move-mark.ts';
import { markFolder, putAwayMoved, readMoveMark } from '../project/moved-folder.ts';
import { type Disk, SMALL_FILE_BYTES_MAX } from '../storage/embedded/disk.ts';
import type { Connections } from '../storage/postgres/database.ts';
import { FolderSource, type FolderSourceOptions } from './folder-source.ts';
import { abandonRows, IncomingRows, openRows, reserveRows } from './incoming-rows.ts';
import { MoveFailed, type MoveLimits, type MoveWatch, moveProject } from './move-project.ts';
import { newMoveMark } from './to-folder.ts';

/** Where a project comes from that is moved into PostgreSQL, and where it goes. */
export interface WayToDatabase {
  readonly project: string;
  /** The project's folder. */
  readonly directory: string;
  /** Where its content goes in the end: a folder that is made below an existing one, on the same file system. */
  readonly keptIn: string;
  readonly disk: Disk;
  readonly database: Connections;
}

export interface MoveToDatabase extends WayToDatabase {
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
  const { project, directory, disk, database } = places;
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
  return finishToDatabase(places, mark);
}

/**
 * Gives a move out of a folder up that has not changed hands: nothing of the project stays in the database. May be done again, also for a project that was
 * deleted meanwhile; nothing is done where none was begun. Nobody may move the project out of its folder meanwhile.
 *
 * @throws MoveFailed once it has changed hands; AppError `project_not_found`, `project_moving` for one that is being brought in.
 */
export async function abandonToDatabase({
  project,
  directory,
  disk,
  database,
}: Omit<WayToDatabase, 'keptIn'>): Promise<void> {
  const mark = await readMoveMark(disk, project, directory);
  if (mark?.state === 'moved')
    throw new MoveFailed(`${project} has changed hands: it comes back by a move from where it is`);
  if (mark !== undefined) throw projectElsewhere(mark);
  const names = (await disk.list(directory)) ?? [];
  // What somebody else brings there of the same id is not to be given up here.
  if (!names.includes(PROJECT_FILE) && !names.includes(DELETION_FILE))
    throw new AppError('project_not_found');
  await abandonRows(database, project);
}

/**
 * Does what is left once a project has changed hands. May be done again.
 *
 * @param mark that of the folder, of state `moved`.
 * @returns where what was in the folder is kept.
 * @throws MoveFailed where the project was not brought to this database.
 */
export async function finishToDatabase(
  { directory, keptIn, disk, database }: WayToDatabase,
  mark: MoveMark,
): Promise<string> {
  // Without its file everything was done before, and the content put away.
  const file = await disk.read(join(directory, PROJECT_FILE), SMALL_FILE_BYTES_MAX);
  if (file !== undefined) {
    // Once more: whoever wrote it may not have come to know that it is durable, and from here on it must be.
    await markFolder(disk, directory, mark);
    await openRows(database, { ...mark, state: 'incoming' }, file.toString());
  }
  return putAwayMoved(disk, directory, keptIn, mark);
}
