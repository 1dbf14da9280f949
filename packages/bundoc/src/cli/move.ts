import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { systemClock } from '@bundoc/shared/clock';
import type { Environment } from '@bundoc/shared/config';
import { DELETION_FILE, PROJECTS_FOLDER } from '@bundoc/shared/contract/project-file';
import { readConfig } from '../config.ts';
import type { OpenFolder } from '../move/folder-source.ts';
import { moveToDatabase } from '../move/to-database.ts';
import { moveToFolder } from '../move/to-folder.ts';
import { markFolder } from '../project/project-folder.ts';
import { type ProjectPlace, readProject } from '../project/project-reader.ts';
import { Backlog } from '../storage/embedded/backlog.ts';
import { makeDirectoryDurably } from '../storage/embedded/disk.ts';
import { nodeDisk } from '../storage/embedded/node-disk.ts';
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

/** Of files that the journal is ahead of. */
const BACKLOG_BYTES_MAX = 67_108_864;
/** One process at a time brings projects into a data folder. */
const INCOMING_FOLDER = 'incoming';

/**
 * Moves a project between the data folder and PostgreSQL: sealed bytes as they are, opened and checked where they came before they are gone where they
 * were. The place that is left is what BUNDOC_STORAGE names. Cut short, it is gone on with when it is run again.
 *
 * @throws CannotRun, MoveFailed.
 */
export async function move(
  environment: Environment,
  named: string,
  { to }: { readonly to: string },
): Promise<void> {
  const [here, there] = [readConfig(environment), readConfig({ ...environment, BUNDOC_STORAGE: to })];
  const project = idOf(named);
  const dataDir = resolve(here.dataDir);
  if (here.storage.kind === 'files' && there.storage.kind === 'postgres')
    await toDatabase(environment, project, dataDir, there.storage);
  else if (here.storage.kind === 'postgres' && there.storage.kind === 'files')
    await toFolder(environment, project, dataDir, here.storage);
  else throw new CannotRun('a project is moved from files to postgres://… or from there to files');
}

/** With the data folder to itself: nobody uses the project. */
async function toDatabase(environment: Environment, project: string, dataDir: string, to: PostgresConfig) {
  using _lock = lock(dataDir);
  const directory = join(dataDir, PROJECTS_FOLDER, project);
  const names = (await nodeDisk.list(directory)) ?? [];
  if (names.length === 0 || names.includes(DELETION_FILE))
    throw new CannotRun(`there is no project ${project}`);
  using bar = createMoveBar();
  const kept = await withDatabase(to, (database) =>
    withKeys(environment, async (keys) => {
      const opened = new OpenedProject({ project, directory, disk: nodeDisk, keys });
      await using _opened = opened;
      return moveToDatabase(
        {
          ...{ project, directory, keptIn: join(dataDir, MOVED_FOLDER), disk: nodeDisk, database },
          source: {
            withOpen: async (action) => action(await opened.open()),
            switchOver: async (mark, action) => {
              await action(await opened.open());
              // What it still writes, it writes before.
              await opened[Symbol.asyncDispose]();
              await markFolder(nodeDisk, directory, mark);
            },
          },
        },
        bar,
      );
    }),
  );
  console.error(`bundoc: ${project} is in ${to.place}; what was in its folder is kept in ${kept}`);
}

async function toFolder(environment: Environment, project: string, dataDir: string, from: PostgresConfig) {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  for (const folder of [PROJECTS_FOLDER, INCOMING_FOLDER])
    await makeDirectoryDurably(nodeDisk, join(dataDir, folder));
  using _incoming = lock(join(dataDir, INCOMING_FOLDER));
  const directory = join(dataDir, PROJECTS_FOLDER, project);
  using bar = createMoveBar();
  await withDatabase(from, (database) =>
    withKeys({ ...environment, BUNDOC_STORAGE: 'files' }, (keys) =>
      moveToFolder(
        { project, directory, disk: nodeDisk, database, keys },
        async (reserve) => {
          using _lock = lock(dataDir);
          await reserve();
        },
        bar,
      ),
    ),
  );
  console.error(`bundoc: ${project} is in ${directory}, and no longer in ${from.place}`);
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
