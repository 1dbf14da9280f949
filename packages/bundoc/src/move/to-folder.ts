import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { PROJECT_FILE } from '@bundoc/shared/contract/project-file';
import type { KeyService } from '../kms/port.ts';
import { MARK_BEGINS } from '../project/deletion-mark.ts';
import type { MoveMark } from '../project/move-mark.ts';
import { emptyMarkedFolder, markFolder, readMoveMark } from '../project/moved-folder.ts';
import { isSameProject, parseProjectFile } from '../project/project-file.ts';
import { moveOf } from '../project/project-rows.ts';
import { type Disk, SMALL_FILE_BYTES_MAX } from '../storage/embedded/disk.ts';
import type { Connections } from '../storage/postgres/database.ts';
import { lockFileRow, readFileRow } from '../storage/postgres/file-row.ts';
import { deleteContentRows } from '../storage/postgres/project-rows.ts';
import { IncomingFolder, openFolder, reserveFolder } from './incoming-folder.ts';
import { MoveFailed, type MoveLimits, type MoveWatch, moveProject } from './move-project.ts';
import { RowsSource } from './rows-source.ts';

export interface MovePlaces {
  readonly project: string;
  /** The project's folder; its parent exists. */
  readonly directory: string;
  readonly disk: Disk;
  readonly database: Connections;
  readonly keys: Pick<KeyService, 'exportKey'>;
}

/**
 * Moves a project out of PostgreSQL, whose nodes go on serving it until it changes hands, into a folder. Cut short at any moment, it is gone on with when it
 * is called again; nobody else may call it for the same folder.
 *
 * @param reserving runs what reserves the folder, while no service has it: one might be making the project. Afterwards it may run.
 * @throws MoveFailed.
 */
export async function moveToFolder(
  places: MovePlaces,
  reserving: (reserve: () => Promise<void>) => Promise<void>,
  watch: MoveWatch,
  limits?: MoveLimits,
): Promise<void> {
  const { project, directory, disk, database } = places;
  const { text } = await readFileRow(database, project);
  if (text === undefined || text.startsWith(MARK_BEGINS))
    throw new MoveFailed(`there is no project ${project}`);
  const mark = moveOf(project, text);
  if (mark?.state === 'incoming')
    throw new MoveFailed(`${project} is being brought into the database: finish that move`);
  if (mark === undefined) {
    const incoming = newMoveMark(project);
    await reserving(() => reserveFolder(places, incoming));
    const source = await RowsSource.open(places, { ...incoming, state: 'moved' });
    const target = new IncomingFolder({ project, directory, disk, cipher: () => source.cipher });
    await moveProject(source, target, watch, limits);
  } else await requireSameMove(places, mark);
  // It has changed hands.
  await openFolder(disk, directory);
  await deleteContentRows(project, (action) => database.transaction('', action));
}

/**
 * Gives up a move into a folder, if the project has not changed hands: what was copied is removed, and the folder's mark says from then on that it is not
 * here. May be done again; nothing is done where nothing is being brought in. Nobody else may move into the folder meanwhile.
 *
 * @throws MoveFailed unless the database has the project: this very one, where it might have changed hands.
 */
export async function abandonToFolder({
  project,
  directory,
  disk,
  database,
}: Omit<MovePlaces, 'keys'>): Promise<void> {
  const mark = await readMoveMark(disk, project, directory);
  const file = await disk.read(join(directory, PROJECT_FILE), SMALL_FILE_BYTES_MAX);
  if (mark === undefined && file !== undefined)
    throw new MoveFailed(`${project} is in ${directory}: it has changed hands`);
  if (mark?.state !== 'incoming') return;
  // Behind this lock stands what came of a move that was changing hands when its process died.
  const text = await database.transaction(
    '',
    async (transaction) => (await lockFileRow(transaction, project)) ?? '',
  );
  const isThere = text !== undefined && text !== '' && moveOf(project, text)?.move !== mark.move;
  if (!isThere) throw new MoveFailed(`${project} is not in the database any more: finish the move`);
  // Its file comes with the last step before a project changes hands.
  if (file !== undefined && !isFileOf(project, text, file))
    throw new MoveFailed(`${project} in the database is not the one that was brought into ${directory}`);
  await emptyMarkedFolder(disk, directory);
  await markFolder(disk, directory, { ...mark, state: 'moved' });
  await emptyMarkedFolder(disk, directory);
}

function isFileOf(project: string, text: string, file: Buffer): boolean {
  const isMark = text.startsWith(MARK_BEGINS) || moveOf(project, text) !== undefined;
  return (
    !isMark && isSameProject(parseProjectFile(project, Buffer.from(text)), parseProjectFile(project, file))
  );
}

export function newMoveMark(project: string): MoveMark {
  const since = new Date().toISOString();
  return { moving: project, format: 1, move: randomUUID(), state: 'incoming', since };
}

/** The project has changed hands already: into this folder, or another. */
async function requireSameMove(
  { project, directory, disk }: MovePlaces,
  { move: id }: MoveMark,
): Promise<void> {
  const here = await readMoveMark(disk, project, directory);
  const isHere =
    here === undefined &&
    (await disk.read(join(directory, PROJECT_FILE), SMALL_FILE_BYTES_MAX)) !== undefined;
  if (!isHere && here?.move !== id) throw new MoveFailed(`${project} was moved away, not to ${directory}`);
}
