import { basename, join, resolve } from 'node:path';
import { systemClock } from '@bundoc/shared/clock';
import type { Environment } from '@bundoc/shared/config';
import { DELETION_FILE, PROJECTS_FOLDER } from '@bundoc/shared/contract/project-file';
import { readConfig } from '../config.ts';
import type { OpenFolder } from '../move/folder-source.ts';
import { abandonToDatabase, moveToDatabase } from '../move/to-database.ts';
import { abandonToFolder, moveToFolder } from '../move/to-folder.ts';
import { markMoved } from '../project/moved-folder.ts';
import { type ProjectPlace, readProject } from '../project/project-reader.ts';
import { Backlog } from '../storage/embedded/backlog.ts';
import { DataFolder } from '../storage/embedded/data-folder.ts';
import { makeDirectoryDurably } from '../storage/embedded/disk.ts';
import { openNodeDisk } from '../storage/embedded/node-disk.ts';
import { openEmbeddedStore } from '../storage/embedded/recovery.ts';
import { SEAL_LIMITS } from '../storage/embedded/seal-budget.ts';
import { createSealedCache } from '../storage/embedded/sealed-cache.ts';
import type { PostgresConfig } from '../storage-config.ts';
import { EMBEDDED_LIMITS, MOVED_FOLDER } from '../storage-files.ts';
import { CannotRun } from './errors.ts';
import { createMoveBar } from './move-bar.ts';
import { idOf } from './names.ts';
import { lock, withKeys } from './open-data.ts';
import { withDatabase } from './open-database.ts';
import { type ServiceOptions, serviceClient, stopSignal } from './service-client.ts';

/** Of files that the journal is ahead of. */
const BACKLOG_BYTES_MAX = 67_108_864;
/** One process at a time brings projects into a data folder. */
const INCOMING_FOLDER = 'incoming';

export interface MoveOptions extends ServiceOptions {
  readonly to?: string;
  readonly abandon?: true;
  readonly json?: true;
}

/** Moves a project, or gives its move up: by itself to the storage that is named, or through the running service to where that is told to move to. */
export async function moveCommand(
  environment: Environment,
  named: string,
  options: MoveOptions,
): Promise<void> {
  const { to, url, tokenFile, abandon } = options;
  const project = idOf(named);
  if (to === undefined && abandon) return abandonOnline(environment, project, options);
  if (to === undefined) return moveOnline(environment, project, options);
  if (url !== undefined || tokenFile !== undefined)
    throw new CannotRun('a running service moves to where its BUNDOC_MOVE_TO says: leave --to out');
  if (abandon) await abandonHere(environment, project, to, options);
  else await moveHere(environment, project, to, options);
}

/** Through the service, which goes on serving the project. Stopped, it is gone on with when it is run again. */
async function moveOnline(environment: Environment, project: string, options: MoveOptions): Promise<void> {
  const signal = stopSignal();
  using bar = createMoveBar();
  const moved = await serviceClient(environment, options)
    .project(project)
    .move({
      signal,
      onProgress: ({ step, documents, of }) => {
        if (step === 'copying') bar.onCopied(documents, of);
        if (step === 'verifying') bar.onVerified(documents, of);
      },
    });
  bar[Symbol.dispose]();
  tell(moved, options, `is in ${moved.to}; what was in its folder is kept in moved/${moved.kept}`);
}

async function abandonOnline(environment: Environment, project: string, options: MoveOptions): Promise<void> {
  await serviceClient(environment, options).project(project).abandonMove({ signal: stopSignal() });
  tellAbandoned(project, options);
}

function tellAbandoned(project: string, { json }: MoveOptions): void {
  if (json) console.log(JSON.stringify({ abandoned: project }));
  else console.error(`bundoc: ${project} is not being moved; it stays where it is`);
}

function tell(
  moved: { readonly moved: string; readonly to: string },
  { json }: MoveOptions,
  text: string,
): void {
  if (json) console.log(JSON.stringify(moved));
  else console.error(`bundoc: ${moved.moved} ${text}`);
}

/**
 * Moves a project between the data folder and PostgreSQL: sealed bytes as they are, opened and checked where they came before they are gone where they
 * were. The place that is left is what BUNDOC_STORAGE names. Cut short, it is gone on with when it is run again.
 *
 * @throws CannotRun, MoveFailed.
 */
async function moveHere(
  environment: Environment,
  project: string,
  to: string,
  options: MoveOptions,
): Promise<void> {
  const { dataDir, database, isToDatabase } = endsOf(environment, to);
  if (isToDatabase) {
    const kept = await toDatabase(environment, project, dataDir, database);
    const moved = { moved: project, to: database.place, kept: basename(kept) };
    tell(moved, options, `is in ${moved.to}; what was in its folder is kept in ${kept}`);
  } else {
    const directory = await toFolder(environment, project, dataDir, database);
    tell(
      { moved: project, to: directory },
      options,
      `is in ${directory}, and no longer in ${database.place}`,
    );
  }
}

/**
 * Gives a move up that {@link moveHere} was not to finish, named as it was.
 *
 * @throws CannotRun, MoveFailed once the project has changed hands.
 */
async function abandonHere(
  environment: Environment,
  project: string,
  to: string,
  options: MoveOptions,
): Promise<void> {
  const { dataDir, database: config, isToDatabase } = endsOf(environment, to);
  // Whoever moves the project holds it.
  using _lock = isToDatabase ? lockForMove(dataDir) : await lockIncoming(dataDir);
  await using disk = openNodeDisk(dataDir);
  const place = { project, directory: join(dataDir, PROJECTS_FOLDER, project), disk };
  await withDatabase(config, (database) =>
    isToDatabase ? abandonToDatabase({ ...place, database }) : abandonToFolder({ ...place, database }),
  );
  tellAbandoned(project, options);
}

/** Where a project is moved between. @throws CannotRun unless these are files and a database. */
function endsOf(
  environment: Environment,
  to: string,
): { readonly dataDir: string; readonly database: PostgresConfig; readonly isToDatabase: boolean } {
  const here = readConfig(environment);
  const there = readConfig({ ...environment, BUNDOC_STORAGE: to, BUNDOC_MOVE_TO: undefined });
  const dataDir = resolve(here.dataDir);
  if (here.storage.kind === 'files' && there.storage.kind === 'postgres')
    return { dataDir, database: there.storage, isToDatabase: true };
  if (here.storage.kind === 'postgres' && there.storage.kind === 'files')
    return { dataDir, database: here.storage, isToDatabase: false };
  throw new CannotRun('a project is moved from files to postgres://… or from there to files');
}

/** With the data folder to itself: nobody uses the project. @returns where its folder is kept. */
async function toDatabase(
  environment: Environment,
  project: string,
  dataDir: string,
  to: PostgresConfig,
): Promise<string> {
  using _lock = lockForMove(dataDir);
  await using disk = openNodeDisk(dataDir);
  const directory = join(dataDir, PROJECTS_FOLDER, project);
  const names = (await disk.list(directory)) ?? [];
  if (names.length === 0 || names.includes(DELETION_FILE))
    throw new CannotRun(`there is no project ${project}`);
  using bar = createMoveBar();
  return await withDatabase(to, (database) =>
    withKeys(environment, async (keys) => {
      const opened = new OpenedProject({ project, directory, disk, keys });
      await using _opened = opened;
      return moveToDatabase(
        {
          ...{ project, directory, keptIn: join(dataDir, MOVED_FOLDER), disk, database },
          source: {
            withOpen: async (action) => action(await opened.open()),
            switchOver: async (mark, action) => {
              await action(await opened.open());
              // What it still writes, it writes before.
              await opened[Symbol.asyncDispose]();
              await markMoved(disk, directory, mark);
            },
          },
        },
        bar,
      );
    }),
  );
}

/** @throws CannotRun that says how it is done while a service has the folder. */
function lockForMove(dataDir: string): Disposable {
  try {
    return lock(dataDir);
  } catch (error) {
    if (!(error instanceof CannotRun)) throw error;
    throw new CannotRun(
      `${error.message}: a running service moves it itself, when told by --url instead of --to`,
      {
        cause: error,
      },
    );
  }
}

/** Held by whoever brings projects into a data folder, which is made where there is none. @throws CannotRun. */
async function lockIncoming(dataDir: string): Promise<Disposable> {
  DataFolder.make(dataDir)[Symbol.dispose]();
  await using disk = openNodeDisk(dataDir);
  for (const folder of [PROJECTS_FOLDER, INCOMING_FOLDER])
    await makeDirectoryDurably(disk, join(dataDir, folder));
  return lock(join(dataDir, INCOMING_FOLDER));
}

/** @returns the project's folder. */
async function toFolder(
  environment: Environment,
  project: string,
  dataDir: string,
  from: PostgresConfig,
): Promise<string> {
  using _incoming = await lockIncoming(dataDir);
  await using disk = openNodeDisk(dataDir);
  const directory = join(dataDir, PROJECTS_FOLDER, project);
  using bar = createMoveBar();
  await withDatabase(from, (database) =>
    withKeys({ ...environment, BUNDOC_STORAGE: 'files' }, (keys) =>
      moveToFolder(
        { project, directory, disk, database, keys },
        async (reserve) => {
          using _lock = lock(dataDir);
          await reserve();
        },
        bar,
      ),
    ),
  );
  return directory;
}

/** A project in a folder that nobody else has, opened when it is first asked for. */
class OpenedProject implements AsyncDisposable {
  readonly #place: ProjectPlace;
  #open: Promise<OpenFolder & { readonly store: AsyncDisposable }> | undefined;

  constructor(place: ProjectPlace) {
    this.#place = place;
  }

  open(): Promise<OpenFolder> {
    this.#open ??= this.#openStore();
    return this.#open;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const opened = await this.#open?.catch(() => undefined);
    this.#open = undefined;
    await opened?.store[Symbol.asyncDispose]();
  }

  async #openStore() {
    const { findings, place, content } = await readProject(this.#place);
    const [wrong] = findings;
    if (wrong !== undefined)
      throw new CannotRun(`${place.project} cannot be moved as it is: ${wrong.part} ${wrong.problem}`);
    const store = await openEmbeddedStore({
      ...place,
      clock: systemClock,
      cache: createSealedCache(0),
      backlog: new Backlog(BACKLOG_BYTES_MAX),
      onIntegrityError: (name) => console.error(`bundoc: the document file ${name} does not open`),
      onFailure: () => undefined,
      onRotationDue: () => undefined,
      limits: EMBEDDED_LIMITS,
      sealLimits: SEAL_LIMITS,
    });
    return { store, cipher: place.cipher, file: content.toString() };
  }
}
