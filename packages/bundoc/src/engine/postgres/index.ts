import { setTimeout as sleep } from 'node:timers/promises';
import { hasCode } from '@bundoc/shared/contract/app-error';
import type { Logger } from '@bundoc/shared/logs/logger';
import { formatAddress, isThisMachine } from '@bundoc/shared/postgres/address';
import { usesTls } from '@bundoc/shared/postgres/connection';
import { refusalIn } from '@bundoc/shared/postgres/refusal';
import { checkServer } from '@bundoc/shared/postgres/server-check';
import { ageMs, every, instant } from '@bundoc/shared/runtime/clock';
import type { OpenMoveTarget } from '../moves/transfer-port.ts';
import { MoveFailed } from '../port/errors.ts';
import { limitsAfter, SEAL_LIMITS } from '../port/seal-budget.ts';
import type { PostgresConfig } from '../storage-config.ts';
import type { EngineDeps, StorageEngine } from '../storage-engine.ts';
import { GroupCommitter } from './commit/group-commit.ts';
import { CommitPolls } from './commit-polls.ts';
import { Database } from './database/database.ts';
import { retryUnavailable } from './database/retry-unavailable.ts';
import { prepareSchema, SchemaMismatch } from './database/schema.ts';
import { PostgresStore } from './postgres-store.ts';
import { ExpiryMarksInRows } from './projects/expiry-rows.ts';
import { PostgresProjects, whyGone } from './projects/postgres-projects.ts';
import { SharedReads } from './reads/shared-reads.ts';
import { SharedStates } from './reads/shared-states.ts';
import { identifyDatabase } from './rows/identity-in-rows.ts';
import { LostInRows } from './rows/lost-in-rows.ts';
import { receiptsInRow } from './rows/receipts-in-row.ts';
import { skipPositions } from './rows/skip-positions.ts';
import { SnapshotConnections } from './snapshots/snapshot-connections.ts';
import { moveTargetIn } from './transfer/move-target.ts';

/** Maximum wait of a start for a server that is unavailable. */
const START_RETRY_FOR_MS = 30_000;
const START_PAUSE_MS = 500;
/** Maximum wait of a readiness check for the server. */
const READY_WITHIN_MS = 2_000;
/** Interval of counts of lost projects: a command accepts their loss beside the nodes. */
const COUNT_LOST_MS = 15_000;

/**
 * The part of the composition root for storage in PostgreSQL. Creates the schema in an empty database.
 *
 * @throws ConfigError, SchemaMismatch, StartRefused; AppError `storage_unavailable` when the server is
 *   unavailable for half a minute.
 */
export async function openPostgresStorage(
  config: PostgresConfig,
  { clock, logger, quota }: EngineDeps,
): Promise<StorageEngine> {
  warnOfPlaintext(config, logger);
  await using stack = new AsyncDisposableStack();
  const database = stack.use(new Database({ ...config, logger }));
  await retryUntilAvailable(config, { clock, logger }, () => prepare(database, config, { clock, logger }));
  const identity = await identifyDatabase(database, clock);
  const reads = new SharedReads(database);
  const snapshots = new SnapshotConnections({ database, clock });
  const states = new SharedStates(database);
  const news = stack.use(new CommitPolls(database, logger));
  const committer = new GroupCommitter({ database, clock });
  const lost = new LostInRows(database, clock);
  await lost.refresh();
  stack.use(every(COUNT_LOST_MS, () => void lost.refresh().catch(() => undefined)));
  const running = stack.move();
  return {
    place: formatAddress(config.address),
    identity,
    receipts: receiptsInRow(database, clock),
    lost,
    isShared: true,
    counts: {
      lostProjects: () => lost.count,
      databaseConnections: () => database.connections,
      databaseWaiting: () => database.waiting,
      databaseSnapshots: () => snapshots.held,
      databaseSnapshotsWaiting: () => snapshots.waiting,
    },
    isReady: () => Promise.race([acceptsWrites(database), sleep(READY_WITHIN_MS, false, { ref: false })]),
    projects: (keys, storage, onSetAside, settle) =>
      new PostgresProjects({ database, keys, clock, storage, onSetAside, settle }),
    skipPositions: (to) => retryUnavailable(clock, () => skipPositions(database, to)),
    expiry: new ExpiryMarksInRows({ database, clock }),
    statesOf: (projects) => states.of(projects),
    openStore: (project, { cipher, head }, watch, unknownSealers) =>
      new PostgresStore({
        ...watch,
        whyGone: () => whyGone({ database, clock }, project),
        project,
        database,
        reads,
        snapshots,
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
 * A database that projects are moved to. Creates the schema in an empty one, as a node would.
 *
 * @throws ConfigError; MoveFailed for the schema of another version, and for a server that refuses; AppError
 *   `storage_unavailable`.
 */
export async function openMoveTarget(
  config: PostgresConfig,
  { clock, logger }: EngineDeps,
): Promise<OpenMoveTarget> {
  await using stack = new AsyncDisposableStack();
  const database = stack.use(new Database({ ...config, logger }));
  await prepare(database, config, { clock, logger }).catch((error: unknown) => {
    const known = error instanceof SchemaMismatch ? error : refusalIn(error);
    throw known === undefined ? error : new MoveFailed(known.message, { cause: error });
  });
  const target = await moveTargetIn(database, clock);
  const open = stack.move();
  return { ...target, [Symbol.asyncDispose]: () => open.disposeAsync() };
}

/** Logs a warning for a plaintext connection to another host. */
export function warnOfPlaintext(config: PostgresConfig, logger: Logger): void {
  if (usesTls(config) || isThisMachine(config.address.host)) return;
  logger.warn(`the connection of ${config.variable} has no TLS: use sslmode=verify-full`);
}

async function prepare(
  database: Database,
  { variable }: PostgresConfig,
  { clock, logger }: Pick<EngineDeps, 'clock' | 'logger'>,
): Promise<void> {
  const warnings = await database.withConnection((run) => checkServer(run, variable, clock.now()));
  for (const warning of warnings) logger.warn(warning);
  await prepareSchema(database);
}

/** Whether the server accepts writes: it is reachable and the primary. */
async function acceptsWrites(database: Database): Promise<boolean> {
  try {
    const [rows] = await database.run("SELECT current_setting('transaction_read_only') = 'off'");
    return rows?.[0]?.[0] === true;
  } catch {
    return false;
  }
}

async function retryUntilAvailable(
  { variable }: PostgresConfig,
  { clock, logger }: EngineDeps,
  action: () => Promise<void>,
): Promise<void> {
  const begun = instant(clock);
  for (;;) {
    try {
      await action();
      return;
    } catch (error) {
      if (!hasCode(error, 'storage_unavailable')) throw error;
      if (ageMs(clock, begun) >= START_RETRY_FOR_MS) throw refusalIn(error) ?? error;
      logger.warn({ err: refusalIn(error) ?? error.cause ?? error }, `waiting for PostgreSQL (${variable})`);
      await sleep(START_PAUSE_MS);
    }
  }
}
