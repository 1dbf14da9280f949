import { setTimeout as sleep } from 'node:timers/promises';
import { hasCode } from '@bundoc/shared/contract/app-error';
import { ageMs, instant } from '@bundoc/shared/runtime/clock';
import { readSecretFile } from '@bundoc/shared/runtime/config';
import type { Logger } from '@bundoc/shared/runtime/logger';
import { readTlsMaterial } from '@bundoc/shared/tls/files';
import type { PostgresConfig } from '../../storage-config.ts';
import { limitsAfter, SEAL_LIMITS } from '../seal-budget.ts';
import type { Storage, StoragePorts } from '../storage-engine.ts';
import { ChangeNews } from './change-news.ts';
import { GroupCommitter } from './commit/group-commit.ts';
import { Database, type DatabaseOptions } from './database/database.ts';
import { migrate } from './database/migrate.ts';
import { checkServer, takesWrites } from './database/server-check.ts';
import { identifyDatabase } from './identity-in-rows.ts';
import { PostgresStore } from './postgres-store.ts';
import { ExpiryMarksInRows } from './projects/expiry-rows.ts';
import { ProjectRows, whyGone } from './projects/project-rows.ts';
import { SharedReads } from './reads/shared-reads.ts';
import { SharedStates } from './reads/shared-states.ts';

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
  { clock, logger, quota }: StoragePorts,
): Promise<Storage> {
  const options = databaseOptions(config, logger);
  warnInClear('BUNDOC_STORAGE', config, logger);
  await using stack = new AsyncDisposableStack();
  const database = stack.use(new Database(options));
  await untilServed({ clock, logger }, () => prepare(database, logger));
  const identity = await identifyDatabase(database, clock);
  const reads = new SharedReads(database);
  const states = new SharedStates(database);
  const news = stack.use(new ChangeNews({ database, connection: options, logger }));
  const committer = new GroupCommitter({ database, clock });
  const running = stack.move();
  return {
    place: config.place,
    identity,
    othersWrite: true,
    counts: { databaseConnections: () => database.connections, databaseWaiting: () => database.waiting },
    isReady: () => Promise.race([takesWrites(database), sleep(READY_WITHIN_MS, false, { ref: false })]),
    projects: (keys, storage, onSetAside, settle) =>
      new ProjectRows({ database, keys, clock, storage, onSetAside, settle }),
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
 * Connections to a database that projects are moved to: the caller's to close. Brings the schema forward, as
 * a node would.
 *
 * @throws ConfigError, SchemaMismatch; AppError `storage_unavailable`.
 */
export async function openMoveTarget(config: PostgresConfig, logger: Logger): Promise<Database> {
  await using stack = new AsyncDisposableStack();
  const database = stack.use(new Database(databaseOptions(config, logger)));
  await prepare(database, logger);
  stack.move();
  return database;
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

async function untilServed({ clock, logger }: StoragePorts, action: () => Promise<void>): Promise<void> {
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
