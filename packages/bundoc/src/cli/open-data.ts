import { join, resolve } from 'node:path';
import { CommandError } from '@bundoc/shared/cli/errors';
import { CATALOG_FILE } from '@bundoc/shared/contract/catalog-head';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import {
  DELETION_FILE,
  MOVE_FILE,
  PROJECT_FILE,
  PROJECTS_FOLDER,
} from '@bundoc/shared/contract/project-file';
import { codeOf, DataFolder } from '@bundoc/shared/files/data-folder';
import { createLogger } from '@bundoc/shared/logs/logger';
import type { Environment } from '@bundoc/shared/process/config';
import { refuseFolderOf } from '@bundoc/shared/process/own-folder';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { WatchedTls } from '@bundoc/shared/tls/watched-tls';
import { type BundocConfig, readConfig } from '../config.ts';
import { DataFolderInUse, type HeldLock, lockDataFolder } from '../engine/files/data-lock.ts';
import { type Disk, TMP_FOLDER } from '../engine/files/disk/disk.ts';
import { openNodeDisk } from '../engine/files/disk/node-disk.ts';
import type { FilesEngine } from '../engine/files/files-engine.ts';
import { identifyFolder } from '../engine/files/identity-in-folder.ts';
import type { ProjectPlace } from '../engine/files/projects/project-reader.ts';
import { type HeldFolder, type OpenFolder, openFolder, viewFolder } from '../engine/files/storage-folder.ts';
import type { StorageIdentity } from '../engine/identity/storage-file.ts';
import type { ProjectInRows } from '../engine/postgres/projects/admin.ts';
import { identifyDatabase } from '../engine/postgres/rows/identity-in-rows.ts';
import type { PostgresConfig } from '../engine/storage-config.ts';
import { KmsClient } from '../kms/client.ts';
import { ServiceToken } from '../kms/service-token.ts';
import { projectsInRows, withDatabase } from './open-database.ts';
import { type StorageExporter, type StorageShown, storageExporter } from './storage-exporter.ts';

/** A data folder that this process holds while a command runs. */
export interface Held extends HeldFolder {
  readonly projectsDir: string;
  /** The folder for unfinished files. */
  readonly tmp: string;
}

/** The projects that a command works on. */
interface InspectedProjects<Place> {
  /** Every project in order, or only the one that was named. */
  readonly projects: readonly Place[];
  readonly storage: StorageShown;
  /** The damage in the log, a sentence each. */
  readonly logDamage: readonly string[];
}

/** The projects of a data folder. */
export interface OpenData extends InspectedProjects<ProjectPlace> {
  /** Runs `work` with the engine of the folder, then closes it. */
  readonly withEngine: (work: (engine: FilesEngine) => Promise<void>) => Promise<void>;
}

/**
 * Runs `action` with exclusive use of the data folder, and with access to BunKMS.
 *
 * @param named the project to work on; all when undefined.
 * @throws CommandError when there is no such folder or project, or a service uses it.
 */
export async function withData<T>(
  config: BundocConfig,
  named: string | undefined,
  action: (data: OpenData) => Promise<T>,
): Promise<T> {
  requireFiles(config);
  return await hold(config, 'found', async (held) => {
    const { dataDir, disk, projectsDir, tmp } = held;
    const names = named === undefined ? await projectsIn(disk, projectsDir) : [named];
    if (named !== undefined) await requirePresent(disk, projectsDir, named);
    const identity = await identifyFolder(disk, dataDir);
    const log = await viewFolder(held, identity);
    return await withStorageKeys(config, identity, (keys) =>
      action({
        storage: keys.storage,
        logDamage: log.damage,
        withEngine: async (work) => {
          await using open = await openFolder(held, config);
          await work(open.engine);
        },
        projects: names.map((project) => {
          const directory = join(projectsDir, project);
          return { project, directory, tmp, disk, keys, log };
        }),
      }),
    );
  });
}

/**
 * Runs `action` with projects in the database, and with access to BunKMS. Nodes may run at the same time.
 *
 * @param named the project to work on; all when undefined.
 * @throws CommandError when there is no such project, or the database does not answer.
 */
async function withRows<T>(
  config: BundocConfig,
  storage: PostgresConfig,
  named: string | undefined,
  action: (rows: InspectedProjects<ProjectInRows>) => Promise<T>,
): Promise<T> {
  return withDatabase(storage, async (database) => {
    const all = await projectsInRows(database);
    if (named !== undefined && !all.includes(named)) throw new CommandError(`there is no project ${named}`);
    const identity = await identifyDatabase(database, systemClock);
    return await withStorageKeys(config, identity, (keys) =>
      action({
        storage: keys.storage,
        logDamage: [],
        projects: (named === undefined ? all : [named]).map((project) => ({ project, database, keys })),
      }),
    );
  });
}

/** Inspects one project after the other, or only the one that is named, in files or in rows. */
export async function eachProject<T>(
  environment: Environment,
  named: string | undefined,
  inFiles: (place: ProjectPlace) => Promise<T>,
  inRows: (place: ProjectInRows) => Promise<T>,
): Promise<InspectedProjects<T>> {
  const config = readConfig(environment);
  const { storage } = config;
  const through = async <Place>(found: InspectedProjects<Place>, inspect: (place: Place) => Promise<T>) => {
    const projects: T[] = [];
    for (const place of found.projects) projects.push(await inspect(place));
    return { ...found, projects };
  };
  return storage.kind === 'files'
    ? await withData(config, named, (data) => through(data, inFiles))
    : await withRows(config, storage, named, (rows) => through(rows, inRows));
}

/**
 * Runs `action` with exclusive use of the data folder, which is created if necessary.
 *
 * @throws CommandError when a service uses the folder.
 */
export async function withMadeFolder<T>(
  config: BundocConfig,
  action: (open: OpenFolder & Held) => Promise<T>,
): Promise<T> {
  // Opening also reads the log: a crash can leave a project only there, so its place is not free.
  return await hold(config, 'made', (held) => withEngineOf(held, config, action));
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
  requireFiles(config);
  return await hold(config, 'found', (held) => withEngineOf(held, config, action));
}

async function withEngineOf<T>(
  held: Held,
  { logBytes }: BundocConfig,
  action: (open: OpenFolder & Held) => Promise<T>,
): Promise<T> {
  await using open = await openFolder(held, { logBytes });
  return await action({ ...held, ...open });
}

/** @throws CommandError when the folder is not found, or another process uses it; ConfigError. */
async function hold<T>(
  config: BundocConfig,
  how: 'found' | 'made',
  action: (held: Held) => Promise<T>,
): Promise<T> {
  const dataDir = resolve(config.dataDir);
  const projectsDir = join(dataDir, PROJECTS_FOLDER);
  refuseFolderOf('BunKMS', dataDir, 'BUNDOC_DATA_DIR');
  using folder = how === 'made' ? DataFolder.make(dataDir, 'BUNDOC_DATA_DIR') : openFound(dataDir);
  await using disk = openNodeDisk(dataDir);
  if (how === 'found' && (await disk.list(projectsDir)) === undefined) throw noDataFolder(dataDir);
  using lock = lockFolder(dataDir);
  return await action({ dataDir, folder, disk, lock, projectsDir, tmp: join(dataDir, TMP_FOLDER) });
}

/** @throws CommandError when there is no such folder. */
function openFound(dataDir: string): DataFolder {
  try {
    return DataFolder.open(dataDir);
  } catch (error) {
    throw codeOf(error) === 'ENOENT' ? noDataFolder(dataDir) : error;
  }
}

function noDataFolder(dataDir: string): CommandError {
  return new CommandError(`there is no data folder at ${dataDir}`);
}

/** @throws CommandError when the projects are not in files. */
function requireFiles({ storage }: BundocConfig): void {
  if (storage.kind !== 'files')
    throw new CommandError('BUNDOC_STORAGE is not a data folder: this command works on files only');
}

/** Runs `action` with access to BunKMS on behalf of the storage. */
export function withStorageKeys<T>(
  config: BundocConfig,
  identity: StorageIdentity,
  action: (keys: StorageExporter) => Promise<T>,
): Promise<T> {
  return withKeys(config, async (kms) => action(await storageExporter(identity, kms)));
}

/**
 * Runs `action` with access to BunKMS, as the service has it. The service token is used as it is, and not
 * renewed.
 */
export async function withKeys<T>(
  { kms: { url, deadlineMs, tokenFile, tls: files } }: BundocConfig,
  action: (kms: KmsClient) => Promise<T>,
): Promise<T> {
  const ports = { clock: systemClock, logger: createLogger({ service: 'bundoc', level: 'silent' }) };
  const token = new ServiceToken({ path: tokenFile, ...ports });
  using tls = files && new WatchedTls({ files, use: 'client', ...ports });
  const kms = new KmsClient({ url, tls, deadlineMs, token: () => token.current(), ...ports });
  try {
    return await action(kms);
  } finally {
    await kms.close();
  }
}

/** @throws CommandError while another process uses the folder. */
function lockFolder(dataDir: string): HeldLock {
  try {
    return lockDataFolder(dataDir);
  } catch (cause) {
    throw cause instanceof DataFolderInUse ? new CommandError(cause.message, { cause }) : cause;
  }
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
export async function projectsIn(disk: Disk, directory: string): Promise<string[]> {
  const names = (await disk.list(directory)) ?? [];
  const projects: string[] = [];
  for (const name of names.sort()) {
    if (projectIdSchema.safeParse(name).data !== name) continue;
    const content = (await disk.list(join(directory, name)).catch(() => undefined)) ?? [];
    if (!isDeleted(content) && !content.includes(MOVE_FILE)) projects.push(name);
  }
  return projects;
}
