import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { MovedProject } from '@bundoc/client';
import { defined } from '@bundoc/shared/contract/defined';
import { DataFolder } from '@bundoc/shared/files/data-folder';
import type { Environment } from '@bundoc/shared/runtime/config';
import { createLogger } from '@bundoc/shared/runtime/logger';
import { startBundoc } from '../app.ts';
import { type BundocConfig, readConfig } from '../config.ts';
import { DataFolderInUse } from '../engine/files/data-lock.ts';
import { openNodeDisk } from '../engine/files/disk/node-disk.ts';
import { TMP_FOLDER } from '../engine/files/files-engine.ts';
import { openFolder } from '../engine/files/storage-folder.ts';
import type { PostgresConfig } from '../engine/storage-config.ts';
import { CommandError } from './errors.ts';
import { createMoveBar } from './move-bar.ts';
import { moveToFolder } from './move-to-folder.ts';
import { parseProjectId } from './names.ts';
import { lock, withKeys } from './open-data.ts';
import { withDatabase } from './open-database.ts';
import { type ServiceOptions, serviceClient, stopSignal } from './service-client.ts';
import { printSetAside } from './set-aside.ts';

/** Time for BunKMS to confirm the storage, milliseconds. */
const CONFIRMED_WITHIN_MS = 10_000;
const SHOW_EVERY_MS = 200;

export interface MoveOptions extends ServiceOptions {
  readonly to?: string;
  readonly json?: true;
}

/**
 * Moves a project: in this process to the named storage, or through the running service to the storage that
 * it is configured to move to. A repeated command resumes an interrupted move.
 *
 * @throws CommandError, MoveFailed, AppError.
 */
export async function moveCommand(
  environment: Environment,
  named: string,
  options: MoveOptions,
): Promise<void> {
  const { to, url, tokenFile, json } = options;
  const project = parseProjectId(named);
  if (to !== undefined && (url !== undefined || tokenFile !== undefined))
    throw new CommandError('a running service moves projects to its BUNDOC_MOVE_TO: leave --to out');
  const { to: place, kept } = await (to === undefined
    ? online(environment, project, options)
    : offline(environment, project, to));
  const rest =
    kept === undefined
      ? ''
      : `; what was in its folder is kept in moved/${kept}: remove it once a backup of the project where it is now is checked ("bundoc backup", "bundoc verify-backup")`;
  if (json) console.log(JSON.stringify({ moved: project, to: place, ...defined({ kept }) }));
  else console.error(`bundoc: ${project} is in ${place}${rest}`);
}

type Ended = Pick<MovedProject, 'to'> & Partial<MovedProject>;

async function online(environment: Environment, project: string, options: MoveOptions): Promise<Ended> {
  const bundoc = await serviceClient(environment, options);
  const bar = createMoveBar();
  const move = { signal: stopSignal(), onProgress: bar.show };
  return await bundoc.project(project).move(move).finally(bar[Symbol.dispose]);
}

async function offline(environment: Environment, project: string, to: string): Promise<Ended> {
  const here = readConfig(environment);
  const there = readConfig({ ...environment, BUNDOC_STORAGE: to, BUNDOC_MOVE_TO: undefined });
  if (here.storage.kind === 'files' && there.storage.kind === 'postgres')
    return toDatabase({ ...here, moveTo: there.storage }, project);
  if (here.storage.kind === 'postgres' && there.storage.kind === 'files')
    return { to: await toFolder(environment, project, here, here.storage) };
  throw new CommandError('a project is moved from files to postgres://… or from there to files');
}

/** Runs a private service that holds the data folder exclusively. */
async function toDatabase(config: BundocConfig, project: string): Promise<Ended> {
  const logger = createLogger({ service: 'bundoc', level: 'silent' });
  const service = await startBundoc({ ...config, host: '127.0.0.1', port: 0 }, { logger }).catch((error) => {
    const remedy = 'a running service moves it itself, when told by --url instead of --to';
    throw error instanceof DataFolderInUse ? new CommandError(`${error.message}: ${remedy}`) : error;
  });
  try {
    using bar = createMoveBar();
    await Promise.race([service.confirmed, sleep(CONFIRMED_WITHIN_MS, undefined, { ref: false })]);
    const move = await service.moves.begin(project);
    const timer = setInterval(() => bar.show(move.progress), SHOW_EVERY_MS);
    return await move.outcome.finally(() => clearInterval(timer));
  } finally {
    await service.close();
  }
}

/** Holds the data folder exclusively, beside running nodes on the database. @returns the project's folder. */
async function toFolder(
  environment: Environment,
  project: string,
  { logBytes, ...here }: BundocConfig,
  config: PostgresConfig,
): Promise<string> {
  const dataDir = resolve(here.dataDir);
  using folder = DataFolder.make(dataDir);
  using held = lock(dataDir);
  await using disk = openNodeDisk(dataDir);
  await using open = await openFolder({ dataDir, folder, disk, lock: held }, { logBytes });
  const tmp = join(dataDir, TMP_FOLDER);
  using bar = createMoveBar();
  return await withDatabase(config, (database) =>
    withKeys(environment, (calls) =>
      moveToFolder({ project, database, dataDir, open, tmp, disk, calls, onSetAside: printSetAside }, bar),
    ),
  );
}
