import type { Pool } from '@bundoc/shared/admission/pool';
import { reportWaits } from '@bundoc/shared/admission/wait-report';
import { createHttpShares } from '@bundoc/shared/http/http-shares';
import { listen } from '@bundoc/shared/http/listen';
import type { HttpTimes } from '@bundoc/shared/http/server';
import { createLogger, type Logger } from '@bundoc/shared/logs/logger';
import { formatAddress } from '@bundoc/shared/postgres/address';
import { Drain } from '@bundoc/shared/process/drain';
import type { RunningService } from '@bundoc/shared/process/lifecycle';
import { VERSION } from '@bundoc/shared/process/version';
import { type Clock, every, systemClock } from '@bundoc/shared/runtime/clock';
import { RateLimit } from '@bundoc/shared/runtime/rate-limit';
import { openServerTls, type ServerTlsPorts } from '@bundoc/shared/tls/server-tls';
import { WatchedTls } from '@bundoc/shared/tls/watched-tls';
import { createApi } from './api.ts';
import { type Composition, composeInstances } from './compose-instances.ts';
import type { BundocConfig } from './config.ts';
import type { KeyCache } from './crypto/key-cache.ts';
import type { Disk } from './engine/files/disk/disk.ts';
import { openFileStorage } from './engine/files/index.ts';
import { runningStorage } from './engine/identity/started-storage.ts';
import { generationsOf } from './engine/identity/storage-file.ts';
import { StorageGeneration } from './engine/identity/storage-generation.ts';
import { watchTakeOvers } from './engine/lost-projects.ts';
import { type SettleMove, settleMove } from './engine/moves/judge-move-mark.ts';
import type { OnSetAside } from './engine/moves/set-aside.ts';
import type { EngineDeps, StorageEngine } from './engine/storage-engine.ts';
import { BURST_S } from './http/processor-time.ts';
import { KmsClient } from './kms/client.ts';
import { ClockSkew } from './kms/clock-skew.ts';
import { KmsEvents } from './kms/events.ts';
import { OutsideKeys } from './kms/outside-keys.ts';
import { Receipts } from './kms/receipts.ts';
import { RevokedTokens } from './kms/revoked-tokens.ts';
import { ServiceToken } from './kms/service-token.ts';
import { StorageKeys } from './kms/storage-keys.ts';
import { TokenKeys } from './kms/token-keys.ts';
import { type BundocMetrics, createBundocMetrics } from './metrics.ts';
import { warnOfLittleMemory } from './process-limits.ts';
import { applyEvent } from './projects/apply-event.ts';
import { ProjectDeletion } from './projects/delete-project.ts';
import { IdleTtlSweeper } from './projects/idle-ttl-sweeper.ts';
import type { InstanceManager } from './projects/instance-manager.ts';
import { ProjectUpkeep } from './projects/project-upkeep.ts';
import type { SpreadRotations } from './projects/spread-rotations.ts';
import { ChangeFeed } from './service/change-feed.ts';
import { diskReport } from './service/disk-report.ts';
import { Moves } from './service/moves.ts';
import { Scheduler } from './work/scheduler.ts';
import { createServiceShares } from './work/service-shares.ts';

/** The parts that a test may replace. */
export interface BundocParts {
  readonly clock?: Clock;
  readonly logger?: Logger;
  /** Wraps the disk of the service. */
  readonly wrapDisk?: (disk: Disk) => Disk;
  /** Interval between checks of the certificate files, milliseconds. */
  readonly checkTlsEveryMs?: number;
  /** Interval between checks of the age of the storage's generation, milliseconds. */
  readonly checkGenerationEveryMs?: number;
  /** Times of the listener. */
  readonly http?: HttpTimes;
}

export interface RunningBundoc extends RunningService {
  /** The URL of the listener, such as `http://127.0.0.1:8080`. */
  readonly url: string;
  /** The shared limits of requests, without those of connections. They are all free while no request runs. */
  readonly shares: readonly Pool[];
}

const SWEEP_EVERY_MS = 1_000;
const TOKEN_KEYS_EVERY_MS = 300_000;
const RESUME_EVERY_MS = 5_000;
/** Interval between checks of the generation's age, and its maximum age. */
const GENERATION_CHECK_MS = 300_000;
const GENERATION_AGE_S_MAX = 3_600;

/** Documents of one project that each sweep re-seals after a rotation. */
const RESEALS_PER_SECOND = 500;

/**
 * Composes the service and starts the listener.
 *
 * @throws ConfigError, DataFolderInUse, SchemaMismatch, and errors of the storage and the listener;
 *   everything is closed first.
 */
export async function startBundoc(config: BundocConfig, parts: BundocParts = {}): Promise<RunningBundoc> {
  const clock = parts.clock ?? systemClock;
  const logger = parts.logger ?? createLogger({ service: 'bundoc', level: config.logLevel });
  warnOfLittleMemory(logger);
  await using stack = new AsyncDisposableStack();

  const metrics = createBundocMetrics();
  const credentials = openCredentials(config, { clock, logger, metrics, parts }, stack);
  const storage = stack.use(
    await openStorage(config, { clock, logger, quota: config.quota }, parts.wrapDisk),
  );
  const ports = { clock, logger, metrics, storage, parts };
  const work = divideWork(config, ports, stack);
  const { scheduler, shares } = work;
  const connected = await connect(config, ports, credentials, stack);
  const { kms, receipts, token, skew } = connected;
  const { id } = await storage.identity.read();
  const generation = new StorageGeneration({
    id,
    identity: storage.identity,
    calls: kms,
    logger,
    onTakenOver: watchTakeOvers({ storage, calls: kms, id, logger }),
    kmsUrl: config.kms.url,
    outage: () => kms.outage(),
    onConfirmed: () => deletion.requestCheck(),
    onSuperseded: () => {
      keys.evictAll();
      instances.sweep();
      feed.endAll();
    },
  });
  const service = new StorageKeys(kms, generation);
  const from = runningStorage(generation, kms);
  const onSetAside = reportSetAside(metrics, logger);
  const settle: SettleMove = (project, move) => settleMove(from, project, move);
  const given = { ...ports, ...work, ...connected, config };
  const kept = composeInstances({ ...given, service, generation, onSetAside, settle });
  const { keys, instances, rotations } = kept;
  stack.use(instances);
  const feed = new ChangeFeed({ instances, clock, logger, scheduler, ...shares });
  const settleDoubt = () => generation.advance();
  const share = shares.deletions;
  const deletion = new ProjectDeletion({ ...kept, service, feed, clock, logger, settleDoubt, share });
  const ends = await moveEnds(storage, config, { clock, logger });
  const moves = new Moves({ ...kept, feed, logger, onSetAside, from, ends, share: shares.moves });
  stack.use(every(RESUME_EVERY_MS, () => void deletion.resume()));
  stack.use(generation);
  const ageMs = parts.checkGenerationEveryMs ?? GENERATION_CHECK_MS;
  stack.use(every(ageMs, () => void advanceOld(storage, generation, logger)));
  void generation.start();
  const revoked = new RevokedTokens(clock);
  const events = new KmsEvents({
    open: (lastEventId, signal) => kms.openEvents(lastEventId, signal),
    ready: generation.answered,
    onEvent: (event) => applyEvent(event, { storage: generation, keys, instances, revoked, feed, deletion }),
    logger,
  });
  stack.use(events);
  observe({ ...ports, generation, scheduler, instances, keys, feed, events, revoked, token, receipts, skew });
  startUpkeep({ storage, generation, instances, rotations, revoked, feed, skew, logger }, stack);
  const tokenKeys = new TokenKeys({ fetchJwks: () => kms.fetchJwks(), clock });
  stack.use(every(TOKEN_KEYS_EVERY_MS, () => void tokenKeys.refresh()));
  void generation.answered.then(() => tokenKeys.refresh());

  const drain = new Drain(config.drainMs);
  const served = { generation, events, revoked, tokenKeys, deletion, feed, moves, id, drain };
  const composed = { ...given, ...kept, ...served };
  const disk = diskReport(config.storage.kind === 'files' ? config.dataDir : undefined, clock, logger);
  const app = await createApi({ ...composed, disk, times: parts.http });
  stack.defer(() => app.close());
  const url = await listen(app, { host: config.host, port: config.port, prefix: 'BUNDOC_' });
  const facts = { url, version: VERSION, storage: storage.place, storageId: id, kmsUrl: config.kms.url };
  logger.info(facts, 'Bundoc is listening');

  const running = stack.move();
  const { gate, connections } = work.httpShares;
  const held = [...Object.values(shares), gate.places, gate.bytes, connections.forwarded];
  return { url, drain, shares: held, close: () => running.disposeAsync() };
}

function reportSetAside(metrics: BundocMetrics, logger: Logger): OnSetAside {
  return (mark) => {
    metrics.markSetAside();
    logger.error(mark, 'an unconfirmed marker was set aside: someone may have planted it in the storage');
  };
}

/** Reads the service token and the certificates, first: a start that they prevent makes no data folder. */
function openCredentials(
  config: BundocConfig,
  { clock, logger, metrics, parts }: Omit<Connected, 'storage'>,
  stack: AsyncDisposableStack,
) {
  const token = new ServiceToken({ path: config.kms.tokenFile, clock, logger });
  const tlsPorts = { clock, logger, metrics, checkEveryMs: parts.checkTlsEveryMs };
  const listenerTls = openServerTls('api', config.tls, undefined, tlsPorts);
  stack.use(listenerTls?.tls);
  const kmsTls = openKmsTls(config, tlsPorts);
  stack.use(kmsTls);
  return { token, listenerTls, kmsTls };
}

/** Opens the connection to BunKMS, with the receipts that are stored. */
async function connect(
  config: BundocConfig,
  { clock, logger, storage }: Connected,
  { token, listenerTls, kmsTls }: ReturnType<typeof openCredentials>,
  stack: AsyncDisposableStack,
) {
  // Closed after the connection: the last answers count.
  const receipts = stack.use(await Receipts.load({ store: storage.receipts, clock, logger }));
  const skew = new ClockSkew({ clock, logger });
  const outside = new OutsideKeys(clock);
  const kms = new KmsClient({
    url: config.kms.url,
    tls: kmsTls,
    deadlineMs: config.kms.deadlineMs,
    token: () => token.current(),
    receipts,
    skew,
    outside,
    clock,
    logger,
  });
  stack.defer(() => kms.close());
  token.keepRenewed(() => kms.renewToken());
  stack.defer(() => token.stop());
  return { kms, outside, receipts, token, skew, listenerTls };
}

/** Creates the gate, and the limits of what is inside. */
function divideWork(
  config: BundocConfig,
  { clock, metrics, logger }: Pick<Composition, 'clock' | 'metrics' | 'logger'>,
  stack: AsyncDisposableStack,
) {
  const httpShares = createHttpShares({ ...config.shares, clock });
  const { accounts, places, bytes } = httpShares.gate;
  stack.use(reportWaits(httpShares.gate, { clock, logger }));
  const limit = processorLimit(config, clock);
  const scheduler = new Scheduler({
    accounts,
    memory: bytes,
    isShared: (account) => places.subjects > (places.heldBy(account.subject.id) > 0 ? 1 : 0),
    onUsed: (key, us) => {
      if (key.subject !== '') limit?.charge(key.project, us / 1_000);
    },
  });
  stack.use(scheduler);
  const shares = createServiceShares(clock, accounts);
  metrics.watchShares(Object.values(shares));
  return { limit, scheduler, shares, httpShares };
}

interface Connected extends Pick<Composition, 'clock' | 'logger' | 'metrics' | 'storage'> {
  readonly parts: BundocParts;
}

interface Observed extends Pick<Composition, 'metrics' | 'storage' | 'generation' | 'scheduler'> {
  readonly instances: InstanceManager;
  readonly keys: KeyCache;
  readonly feed: ChangeFeed;
  readonly events: KmsEvents;
  readonly revoked: RevokedTokens;
  readonly token: ServiceToken;
  readonly receipts: Receipts;
  readonly skew: ClockSkew;
}

/** Registers what the metrics measure on each scrape. */
function observe(observed: Observed): void {
  const { metrics, storage, generation, scheduler, instances, keys, feed, events } = observed;
  const { revoked, token, receipts, skew } = observed;
  metrics.observe({
    projectsOpen: () => instances.size,
    openBytes: () => instances.bytes,
    openingsWaiting: () => instances.openingsWaiting,
    keysCached: () => keys.size,
    keyFetchesWaiting: () => keys.fetchesWaiting,
    changeFollowers: () => feed.waiting,
    pendingReencryption: () => instances.pendingReencryption,
    ...storage.counts,
    eventsLive: () => (events.isLive ? 1 : 0),
    tokensRevoked: () => revoked.size,
    storageSuperseded: () => (generation.state === 'superseded' ? 1 : 0),
    workWaiting: () => scheduler.waiting,
    largeWorkWaiting: () => scheduler.large.waiting,
    receiptSeq: () => receipts.seq ?? Number.NaN,
    clockSkewS: () => skew.seconds ?? Number.NaN,
    tokenExpiryS: () => (token.expiresAtMs ?? Number.NaN) / 1_000,
  });
  metrics.observeWork(scheduler);
}

/** Starts the work that runs every second. */
function startUpkeep(
  { storage, generation, instances, rotations, revoked, feed, skew, logger }: UpkeepParts,
  stack: AsyncDisposableStack,
): void {
  const upkeep = new ProjectUpkeep({
    instances,
    logger,
    rotations,
    resealsMax: RESEALS_PER_SECOND,
    statesOf: storage.statesOf,
  });
  const sweep = () => {
    instances.sweep();
    revoked.sweep();
    feed.tick();
    skew.report();
    void upkeep.run();
  };
  stack.use(every(SWEEP_EVERY_MS, sweep));

  const idleSweeper = stack.use(new IdleTtlSweeper({ marks: storage.expiry, instances, logger }));
  const sweepIfServed = () => {
    if (generation.state === 'confirmed') void idleSweeper.sweep();
  };
  stack.use(every(SWEEP_EVERY_MS, sweepIfServed));
}

interface UpkeepParts extends Pick<Composition, 'storage' | 'generation' | 'logger'> {
  readonly instances: InstanceManager;
  readonly rotations: SpreadRotations;
  readonly revoked: RevokedTokens;
  readonly feed: ChangeFeed;
  readonly skew: ClockSkew;
}

/** The limit on processor time per project; undefined for no limit. */
function processorLimit(
  { processorMsPerProject: perSecond }: BundocConfig,
  clock: Clock,
): RateLimit | undefined {
  return perSecond === 0 ? undefined : new RateLimit({ clock, perSecond, burst: perSecond * BURST_S });
}

/**
 * The client certificate for BunKMS and its authorities; undefined without any. Logs a warning for a
 * plaintext connection to another host.
 */
function openKmsTls(
  { kms }: BundocConfig,
  { clock, logger, metrics, checkEveryMs }: ServerTlsPorts,
): WatchedTls | undefined {
  const { protocol, hostname } = new URL(kms.url);
  if (protocol === 'http:' && !/^(127\.|localhost$|\[::1\]$)/.test(hostname))
    logger.warn('BUNDOC_KMS_URL is plain HTTP: keys are sent in the clear');
  if (kms.tls === undefined) return undefined;
  const tls = new WatchedTls({ files: kms.tls, use: 'client', clock, logger, checkEveryMs });
  metrics.watchCertificate('client', tls);
  return tls;
}

/** A hundred modules, which a service on files neither loads nor keeps in memory. */
const postgresEngine = () => import('./engine/postgres/index.ts');

/** What projects are moved from and to; undefined where the service moves none. */
async function moveEnds({ moveSource: source }: StorageEngine, { moveTo }: BundocConfig, ports: EngineDeps) {
  if (moveTo === undefined) return undefined;
  const { openMoveTarget, warnOfPlaintext } = await postgresEngine();
  warnOfPlaintext(moveTo, ports.logger);
  const target = { place: formatAddress(moveTo.address), open: () => openMoveTarget(moveTo, ports) };
  return source && { source, target };
}

/** Opens the configured storage, and says so in the log if it is new. */
async function openStorage(
  config: BundocConfig,
  ports: EngineDeps,
  wrapDisk: BundocParts['wrapDisk'],
): Promise<StorageEngine> {
  const storage =
    config.storage.kind === 'files'
      ? await openFileStorage(config, ports, wrapDisk)
      : await (await postgresEngine()).openPostgresStorage(config.storage, ports);
  const identity = await storage.identity.read();
  // It has never asked BunKMS: if an operator expects projects here, the folder or the database is wrong.
  if (generationsOf(identity).length === 0)
    ports.logger.info(
      { storage: identity.id },
      `created a new store in ${storage.place}: it has no projects yet`,
    );
  return storage;
}

/**
 * Advances a generation older than an hour. This reveals a copy of the storage that runs at the same time.
 * One of several nodes does it.
 */
async function advanceOld(
  storage: StorageEngine,
  generation: StorageGeneration,
  logger: Logger,
): Promise<void> {
  try {
    const ageS = await storage.identity.ageS();
    if (generation.state === 'confirmed' && ageS >= GENERATION_AGE_S_MAX) await generation.advance();
  } catch (error) {
    logger.warn({ err: error }, 'the generation of the storage was not advanced');
  }
}
