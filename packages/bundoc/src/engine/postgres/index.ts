import { setTimeout as sleep } from 'node:timers/promises';
import { hasCode } from '@bundoc/shared/contract/app-error';
import { ageMs, instant } from '@bundoc/shared/runtime/clock';
import { readSecretFile } from '@bundoc/shared/runtime/config';
import type { Logger } from '@bundoc/shared/runtime/logger';
import { readTlsMaterial } from '@bundoc/shared/tls/files';
import { MoveFailed } from '../errors.ts';
import { limitsAfter, SEAL_LIMITS } from '../seal-budget.ts';
import type { PostgresConfig } from '../storage-config.ts';
import type { EngineDeps, StorageEngine } from '../storage-engine.ts';
import type { OpenMoveTarget } from '../transfer-port.ts';
import { GroupCommitter } from './commit/group-commit.ts';
import { CommitNotifications } from './commit-notifications.ts';
import { Database, type DatabaseOptions } from './database/database.ts';
import { migrate, SchemaMismatch } from './database/migrate.ts';
import { checkServer, takesWrites } from './database/server-check.ts';
import { PostgresStore } from './postgres-store.ts';
import { ExpiryMarksInRows } from './projects/expiry-rows.ts';
import { PostgresProjects, whyGone } from './projects/postgres-projects.ts';
import { SharedReads } from './reads/shared-reads.ts';
import { SharedStates } from './reads/shared-states.ts';
import { identifyDatabase } from './rows/identity-in-rows.ts';
import { moveTargetIn } from './transfer/move-target.ts';

/** How long a start waits for a server that cannot serve yet. */
const START_PATIENCE_MS = 30_000;
const START_PAUSE_MS = 500;
/** How long readiness waits for the server. */
const READY_WITHIN_MS = 2_000;

/**
 * The part of the composition root that stores in PostgreSQL. Brings the schema forward.
 *
 * @throws ConfigError, SchemaMismatch, StartRefused; AppError `storage_unavailable` when the server cannot
 * serve for half a minute.
 */
export async function openPostgresStorage(
  config: PostgresConfig,
  { clock, logger, quota }: EngineDeps,
): Promise<StorageEngine> {
  const options = databaseOptions(config, logger);
  warnInClear('BUNDOC_STORAGE', config, logger);
  await using stack = new AsyncDisposableStack();
  const database = stack.use(new Database(options));
  await untilServed({ clock, logger }, () => prepare(database, logger));
  const identity = await identifyDatabase(database, clock);
  const reads = new SharedReads(database);
  const states = new SharedStates(database);
  const news = stack.use(new CommitNotifications({ database, connection: options, logger }));
  const committer = new GroupCommitter({ database, clock });
  const running = stack.move();
  return {
    place: config.place,
    identity,
    isShared: true,
    counts: { databaseConnections: () => database.connections, databaseWaiting: () => database.waiting },
    isReady: () => Promise.race([takesWrites(database), sleep(READY_WITHIN_MS, false, { ref: false })]),
    projects: (keys, storage, onSetAside, settle) =>
      new PostgresProjects({ database, keys, clock, storage, onSetAside, settle }),
    expiry: new ExpiryMarksInRows({ database, clock }),
    statesOf: (projects) => states.of(projects),
    openStore: (project, { cipher, head }, watch, unknownSealers) =>
      new PostgresStore({
        ...watch,
        whyGone: () => whyGone({ database, clock }, project),
        project,
        database,
        reads,
        states,
        cipher,
        clock,
        news,
        committer,
        sealLimits: limitsAfter(SEAL_LIMITS, unknownSealers),
        quota,
      }).begin(head),
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/**
 * A database that projects are moved to. Brings the schema forward, as a node would.
 *
 * @throws ConfigError; MoveFailed for a schema of another build; AppError `storage_unavailable`.
 */
export async function openMoveTarget(
  config: PostgresConfig,
  { clock, logger }: EngineDeps,
): Promise<OpenMoveTarget> {
  await using stack = new AsyncDisposableStack();
  const database = stack.use(new Database(databaseOptions(config, logger)));
  await prepare(database, logger).catch((error: unknown) => {
    throw error instanceof SchemaMismatch ? new MoveFailed(error.message, { cause: error }) : error;
  });
  const target = await moveTargetIn(database, clock);
  const open = stack.move();
  return { ...target, [Symbol.asyncDispose]: () => open.disposeAsync() };
}

/** A connection in the clear is worth a word. */
export function warnInClear(variable: string, { tls, url }: PostgresConfig, logger: Logger): void {
  if (tls !== undefined || /^(127\.|localhost$|\[::1\]$)/.test(new URL(url).hostname)) return;
  logger.warn(`${variable} is connected to without TLS: use sslmode=verify-full or BUNDOC_POSTGRES_CA_FILE`);
}

async function prepare(database: Database, logger: Logger): Promise<void> {
  for (const warning of await checkServer(database)) logger.warn(warning);
  await migrate(database);
}

/** How to connect. @throws ConfigError for invalid files. */
export function databaseOptions(config: PostgresConfig, logger: DatabaseOptions['logger']): DatabaseOptions {
  const { tls, passwordFile } = config;
  const ca = tls?.ca && readTlsMaterial({ ca: tls.ca }).ca;
  if (passwordFile !== undefined) readSecretFile(passwordFile.variable, passwordFile.path);
  return {
    ...config,
    logger,
    tls: tls && (ca === undefined ? {} : { ca }),
    password: passwordFile && (() => readSecretFile(passwordFile.variable, passwordFile.path)),
  };
}

async function untilServed({ clock, logger }: EngineDeps, action: () => Promise<void>): Promise<void> {
  const begun = instant(clock);
  for (;;) {
    try {
      await action();
      return;
    } catch (error) {
      if (!hasCode(error, 'storage_unavailable') || ageMs(clock, begun) >= START_PATIENCE_MS) throw error;
      logger.warn({ err: error }, 'PostgreSQL does not answer; waiting for it');
      await sleep(START_PAUSE_MS);
    }
  }
}
