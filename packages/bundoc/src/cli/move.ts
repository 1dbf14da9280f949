import { setTimeout as sleep } from 'node:timers/promises';
import type { MovedProject } from '@bundoc/client';
import type { AddCommands } from '@bundoc/shared/cli/command';
import { CommandError } from '@bundoc/shared/cli/errors';
import { print } from '@bundoc/shared/cli/print';
import { defined } from '@bundoc/shared/contract/defined';
import { createLogger } from '@bundoc/shared/logs/logger';
import type { Environment } from '@bundoc/shared/process/config';
import { startBundoc } from '../app.ts';
import { type BundocConfig, readConfig } from '../config.ts';
import { DataFolderInUse } from '../engine/files/data-lock.ts';
import type { PostgresConfig } from '../engine/storage-config.ts';
import { createMoveBar } from './move-bar.ts';
import { moveToFolder } from './move-to-folder.ts';
import { withKeys, withMadeFolder } from './open-data.ts';
import { withDatabase } from './open-database.ts';
import { onProject, openProject, type ServiceOptions, stopSignal } from './service-client.ts';
import { printSetAside } from './set-aside.ts';

/** Time for BunKMS to confirm the storage, milliseconds. */
const CONFIRMED_WITHIN_MS = 10_000;
const SHOW_EVERY_MS = 200;

/**
 * `bundoc move`: moves a project, in this process to the named storage, or through the running service to the
 * storage that it is configured to move to. A repeated command resumes an interrupted move.
 */
export const addMoveCommand: AddCommands = (program, environment) => {
  onProject(
    program,
    'move',
    'moves a project between files and PostgreSQL, sealed as it is: with --to from where BUNDOC_STORAGE says; without, through the running service on ' +
      'files to where its BUNDOC_MOVE_TO says, while the project is used',
  )
    .option('--to <storage>', 'postgres://… or files (BUNDOC_DATA_DIR)')
    .action(async (project, { to, ...options }) => {
      if (to !== undefined && (options.url !== undefined || options.tokenFile !== undefined))
        throw new CommandError('a running service moves projects to its BUNDOC_MOVE_TO: leave --to out');
      const { to: place, kept } = await (to === undefined
        ? online(environment, project, options)
        : offline(environment, project, to));
      const rest =
        kept === undefined
          ? ''
          : `; what was in its folder is kept in moved/${kept}: remove it once a backup of the project where it is now is checked ("bundoc backup", "bundoc verify-backup")`;
      if (options.json) print(options, { moved: project, to: place, ...defined({ kept }) }, () => []);
      else console.error(`bundoc: ${project} is in ${place}${rest}`);
    });
};

type Ended = Pick<MovedProject, 'to'> & Partial<MovedProject>;

async function online(environment: Environment, id: string, options: ServiceOptions): Promise<Ended> {
  const project = await openProject(environment, options, id);
  const bar = createMoveBar();
  const move = { signal: stopSignal(), onProgress: bar.show };
  return await project.move(move).finally(bar[Symbol.dispose]);
}

async function offline(environment: Environment, project: string, to: string): Promise<Ended> {
  const here = readConfig(environment);
  const there = readConfig({ ...environment, BUNDOC_STORAGE: to, BUNDOC_MOVE_TO: undefined });
  if (here.storage.kind === 'files' && there.storage.kind === 'postgres')
    return toDatabase({ ...here, moveTo: there.storage }, project);
  if (here.storage.kind === 'postgres' && there.storage.kind === 'files')
    return { to: await toFolder(project, here, here.storage) };
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
async function toFolder(project: string, config: BundocConfig, storage: PostgresConfig): Promise<string> {
  return await withMadeFolder(config, async (open) => {
    using bar = createMoveBar();
    const { dataDir, disk, tmp } = open;
    return await withDatabase(storage, (database) =>
      withKeys(config, (calls) =>
        moveToFolder({ project, database, dataDir, open, tmp, disk, calls, onSetAside: printSetAside }, bar),
      ),
    );
  });
}
