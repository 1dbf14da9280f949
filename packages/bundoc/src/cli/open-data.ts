import { join, resolve } from 'node:path';
import { CATALOG_FILE } from '@bundoc/shared/contract/catalog-head';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import {
  DELETION_FILE,
  MOVE_FILE,
  PROJECT_FILE,
  PROJECTS_FOLDER,
} from '@bundoc/shared/contract/project-file';
import { codeOf, DataFolder } from '@bundoc/shared/files/data-folder';
import { systemClock } from '@bundoc/shared/runtime/clock';
import type { Environment } from '@bundoc/shared/runtime/config';
import { createLogger } from '@bundoc/shared/runtime/logger';
import { WatchedTls } from '@bundoc/shared/tls/watched-tls';
import { type BundocConfig, readConfig } from '../config.ts';
import { DataFolderInUse, type HeldLock, lockDataFolder } from '../engine/files/data-lock.ts';
import type { Disk } from '../engine/files/disk/disk.ts';
import { openNodeDisk } from '../engine/files/disk/node-disk.ts';
import { type FilesEngine, TMP_FOLDER } from '../engine/files/files-engine.ts';
import { identifyFolder } from '../engine/files/identity-in-folder.ts';
import type { ProjectPlace } from '../engine/files/projects/project-reader.ts';
import { type OpenFolder, openFolder, viewFolder } from '../engine/files/storage-folder.ts';
import type { ProjectInRows } from '../engine/postgres/projects/admin.ts';
import { identifyDatabase } from '../engine/postgres/rows/identity-in-rows.ts';
import type { PostgresConfig } from '../engine/storage-config.ts';
import type { StorageIdentity } from '../engine/storage-file.ts';
import { KmsClient } from '../kms/client.ts';
import { ServiceToken } from '../kms/service-token.ts';
import { CommandError } from './errors.ts';
import { parseProjectId } from './names.ts';
import { projectsInRows, withDatabase } from './open-database.ts';
import { type StorageExporter, type StorageShown, storageExporter } from './storage-exporter.ts';

/** A free place for a project, in a data folder that this process holds. */
export interface EmptyPlace {
  readonly dataDir: string;
  readonly projectsDirectory: string;
  /** The folder for unfinished files. */
  readonly tmp: string;
  readonly disk: Disk;
  readonly keys: StorageExporter;
  readonly engine: FilesEngine;
}

/** The data folder, held by this process while a command runs. */
export interface OpenData {
  /** Every project in order, or only the one that was named. */
  readonly projects: readonly ProjectPlace[];
  /** The damage in the log, a sentence each. */
  readonly logDamage: readonly string[];
  readonly storage: StorageShown;
  /** Runs `work` with the engine of the folder, then closes it. */
  readonly withEngine: (work: (engine: FilesEngine) => Promise<void>) => Promise<void>;
}

/**
 * Runs `action` with exclusive use of the data folder, and with access to BunKMS. The service token is used
 * as it is, and not renewed.
 *
 * @param named the project to work on; all when undefined.
 * @throws CommandError when there is no such folder or project, or a service uses it.
 */
export async function withData<T>(
  environment: Environment,
  named: string | undefined,
  action: (data: OpenData) => Promise<T>,
): Promise<T> {
  const config = readConfig(environment);
  const dataDir = filesOf(config);
  const projectsDir = join(dataDir, PROJECTS_FOLDER);
  using folder = openDataFolder(dataDir);
  await using disk = openNodeDisk(dataDir);
  if ((await disk.list(projectsDir)) === undefined) throw noDataFolder(dataDir);
  using held = lock(dataDir);
  const names = named === undefined ? await projectsIn(disk, projectsDir) : [parseProjectId(named)];
  if (named !== undefined) await requirePresent(disk, projectsDir, parseProjectId(named));
  const identity = await identifyFolder(disk, dataDir);
  const log = await viewFolder({ dataDir, folder, disk }, identity);
  return await withStorageKeys(environment, identity, (keys) =>
    action({
      storage: keys.storage,
      logDamage: log.damage,
      withEngine: async (work) => {
        await using open = await openFolder({ dataDir, folder, disk, lock: held }, config);
        await work(open.engine);
      },
      projects: names.map((project) => ({
        project,
        directory: join(projectsDir, project),
        tmp: join(dataDir, TMP_FOLDER),
        disk,
        keys,
        log,
      })),
    }),
  );
}

/**
 * Runs `action` with projects in the database, and with access to BunKMS. Nodes may run at the same time.
 *
 * @param named the project to work on; all when undefined.
 * @throws CommandError when there is no such project, or the database does not answer.
 */
export async function withRows<T>(
  environment: Environment,
  storage: PostgresConfig,
  named: string | undefined,
  action: (places: readonly ProjectInRows[], storage: StorageShown) => Promise<T>,
): Promise<T> {
  return withDatabase(storage, async (database) => {
    const all = await projectsInRows(database);
    const project = named === undefined ? undefined : parseProjectId(named);
    if (project !== undefined && !all.includes(project))
      throw new CommandError(`there is no project ${project}`);
    const names = project === undefined ? all : [project];
    const identity = await identifyDatabase(database, systemClock);
    return await withStorageKeys(environment, identity, (keys) =>
      action(
        names.map((name) => ({ project: name, database, keys })),
        keys.storage,
      ),
    );
  });
}

/**
 * Runs `action` with exclusive use of the data folder, which is created if necessary, and a place in it for a
 * project.
 *
 * @throws CommandError when a service uses the folder.
 */
export async function withEmptyPlace<T>(
  environment: Environment,
  action: (place: EmptyPlace) => Promise<T>,
): Promise<T> {
  const config = readConfig(environment);
  const dataDir = resolve(config.dataDir);
  using folder = DataFolder.make(dataDir);
  using held = lock(dataDir);
  await using disk = openNodeDisk(dataDir);
  // Opening also reads the log: a crash can leave a project only there, so its place is not free.
  await using open = await openFolder({ dataDir, folder, disk, lock: held }, config);
  const { identity, projectsDir, engine } = open;
  const tmp = join(dataDir, TMP_FOLDER);
  return await withStorageKeys(environment, identity, (keys) =>
    action({ dataDir, projectsDirectory: projectsDir, tmp, disk, keys, engine }),
  );
}

/**
 * Runs `action` with the open data folder, held exclusively, without any key.
 *
 * @throws CommandError when there is no such folder, or a service uses it.
 */
export async function withFolder<T>(
  environment: Environment,
  action: (open: OpenFolder) => Promise<T>,
): Promise<T> {
  const config = readConfig(environment);
  const dataDir = filesOf(config);
  using folder = openDataFolder(dataDir);
  using held = lock(dataDir);
  await using disk = openNodeDisk(dataDir);
  await using open = await openFolder({ dataDir, folder, disk, lock: held }, config);
  return await action(open);
}

/** The data folder. @throws CommandError when the projects are not in files. */
function filesOf({ storage, dataDir }: BundocConfig): string {
  if (storage.kind !== 'files')
    throw new CommandError('BUNDOC_STORAGE is not a data folder: this command works on files only');
  return resolve(dataDir);
}

/** Runs `action` with access to BunKMS on behalf of the storage. */
export function withStorageKeys<T>(
  environment: Environment,
  identity: StorageIdentity,
  action: (keys: StorageExporter) => Promise<T>,
): Promise<T> {
  return withKeys(environment, async (kms) => action(await storageExporter(identity, kms)));
}

/**
 * Runs `action` with access to BunKMS, as the service has it. The service token is used as it is, and not
 * renewed.
 */
export async function withKeys<T>(
  environment: Environment,
  action: (kms: KmsClient) => Promise<T>,
): Promise<T> {
  const { kms: config } = readConfig(environment);
  const logger = createLogger({ service: 'bundoc', level: 'silent' });
  const token = new ServiceToken({ path: config.tokenFile, clock: systemClock, logger });
  const { url, tls: files, deadlineMs } = config;
  using tls = files && new WatchedTls({ files, use: 'client', clock: systemClock, logger });
  const kms = new KmsClient({
    url,
    tls,
    deadlineMs,
    token: () => token.current(),
    clock: systemClock,
    logger,
  });
  try {
    return await action(kms);
  } finally {
    await kms.close();
  }
}

/** @throws CommandError while another process uses the folder. */
export function lock(dataDir: string): HeldLock {
  try {
    return lockDataFolder(dataDir);
  } catch (error) {
    if (error instanceof DataFolderInUse) throw new CommandError(error.message, { cause: error });
    throw error;
  }
}

/** @throws CommandError when there is no such folder. */
function openDataFolder(dataDir: string): DataFolder {
  try {
    return DataFolder.open(dataDir);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') throw noDataFolder(dataDir);
    throw error;
  }
}

function noDataFolder(dataDir: string): CommandError {
  return new CommandError(`there is no data folder at ${dataDir}`);
}

/** @throws CommandError unless the project is here. */
async function requirePresent(disk: Disk, directory: string, project: string): Promise<void> {
  const content = await disk.list(join(directory, project));
  if (content === undefined) throw new CommandError(`there is no project ${project}`);
  if (isDeleted(content)) throw new CommandError(`project ${project} was deleted`);
  if (content.includes(MOVE_FILE))
    throw new CommandError(`project ${project} is not here: it is being moved here, or was moved away`);
}

/** Whether only a deletion marker is left of the project. */
function isDeleted(content: readonly string[]): boolean {
  return (
    content.includes(DELETION_FILE) && !content.includes(PROJECT_FILE) && !content.includes(CATALOG_FILE)
  );
}

/** All projects, without deleted ones and without those that are moving in or have moved away. */
async function projectsIn(disk: Disk, directory: string): Promise<string[]> {
  const names = (await disk.list(directory)) ?? [];
  const projects: string[] = [];
  for (const name of names.sort()) {
    if (projectIdSchema.safeParse(name).data !== name) continue;
    const content = (await disk.list(join(directory, name)).catch(() => undefined)) ?? [];
    if (!isDeleted(content) && !content.includes(MOVE_FILE)) projects.push(name);
  }
  return projects;
}
