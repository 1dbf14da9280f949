import { randomUUID } from 'node:crypto';
import { isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { CONSOLE_FOLDER } from '@bundoc/console/folder';
import { readSite } from '@bundoc/shared/console/site';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { Connections } from '@bundoc/shared/http/connection-limit';
import { createHttpShares } from '@bundoc/shared/http/http-shares';
import { boundedWarner } from '@bundoc/shared/runtime/bounded-warner';
import { type Clock, every, systemClock } from '@bundoc/shared/runtime/clock';
import { Drain } from '@bundoc/shared/runtime/drain';
import type { RunningService } from '@bundoc/shared/runtime/lifecycle';
import { createLogger, type Logger } from '@bundoc/shared/runtime/logger';
import { VERSION } from '@bundoc/shared/runtime/version';
import { openServerTls, type ServerTls } from '@bundoc/shared/tls/server-tls';
import type { FastifyInstance } from 'fastify';
import { ExportRecorder } from './audit/export-recorder.ts';
import { AuditLog } from './audit/log.ts';
import { AuditRecorders, type RefusalSink } from './audit/recorders.ts';
import { adoptSealedRefusals, SealedRefusals } from './audit/sealed-refusals.ts';
import { positionFile } from './audit/ship/position.ts';
import { AuditShipper } from './audit/ship/shipper.ts';
import { fileSink, outputSink } from './audit/ship/sinks.ts';
import type { BunkmsConfig, ShipTarget } from './config.ts';
import { OpenedKeys } from './encryption/opened-keys.ts';
import { EventFeed } from './events/event-feed.ts';
import { cryptoAudit } from './http/crypto-audit.ts';
import { exportAudit } from './http/export-audit.ts';
import { guardPeers, peersOf, resolveInternalAddress, watchAddress } from './http/internal-network.ts';
import { Limits } from './http/limits.ts';
import {
  createApiListener,
  createInternalListener,
  type ListenerOptions,
  type OnProblem,
} from './http/listener.ts';
import { createReadiness } from './http/readiness.ts';
import type { ServiceGate, Services } from './http/services.ts';
import type { KekDeps } from './kek/kek-rotation.ts';
import { KekUpkeep } from './kek/kek-upkeep.ts';
import { KeyRewrap } from './kek/rewrap-keys.ts';
import type { KeyDeps } from './keys/stored-key.ts';
import { KeySweep } from './keys/sweep-keys.ts';
import { createMetrics, type Metrics } from './metrics.ts';
import { openStore } from './open-store.ts';
import { SYSTEM } from './records/caller.ts';
import { neededKeks } from './records/kek-state.ts';
import type { KmsStore } from './store/port.ts';
import type { TokenStore } from './store/tokens.ts';
import { pruneTokens } from './tokens/prune-tokens.ts';
import { TokenService } from './tokens/token-service.ts';
import { type KekProvider, kekProviderOf } from './vault/kek-provider.ts';
import { Keks } from './vault/keks.ts';
import { type Unsealed, unseal } from './vault/unseal.ts';
import { Vault } from './vault/vault.ts';

/** What tests and `main.ts` put in the place of the real thing. */
export interface BunkmsDependencies {
  readonly clock?: Clock;
  readonly logger?: Logger;
  readonly metrics?: Metrics;
  /** How often certificate files are looked at, milliseconds. */
  readonly checkTlsEveryMs?: number;
  /** Longest time to receive a whole request, milliseconds. */
  readonly requestTimeoutMs?: number;
  /** Opens the store; the service closes it. */
  readonly openStore?: (config: BunkmsConfig, logger: Logger) => Promise<KmsStore>;
}

export interface RunningBunkms extends RunningService {
  /** Where the API listener answers, without a slash at its end. */
  readonly apiUrl: string;
  readonly internalUrl: string;
  /** Ends running requests, then writes what audit records wait, then closes the store. Idempotent. */
  close(): Promise<void>;
}

const PRUNE_MS = 3_600_000;
/** How often the ring, and what others made of the KEKs, are looked at, milliseconds. */
const KEK_UPKEEP_MS = 5_000;
/** How often keys are looked for whose deletion or rotation is due, milliseconds. */
const KEY_SWEEP_MS = 15_000;
/** How often the minutes that are counted, and the keys that are kept, are looked at, milliseconds. */
const SWEEP_MS = 5_000;

/**
 * Starts the key service: composes it, opens its store, unseals it if the KEK fits, and listens. A KEK that
 * does not fit is no failure: the service starts sealed and says so.
 *
 * @throws ConfigError for an unusable KEK ring or internal address, AppError when the store cannot be opened.
 * What was opened is closed again.
 */
export async function startBunkms(
  config: BunkmsConfig,
  dependencies: BunkmsDependencies = {},
): Promise<RunningBunkms> {
  const clock = dependencies.clock ?? systemClock;
  const logger = dependencies.logger ?? createLogger({ service: 'bunkms', level: config.logLevel });
  const metrics = dependencies.metrics ?? createMetrics();
  await using opened = new AsyncDisposableStack();

  const internalAddress = await resolveInternalAddress(config.internalHost);
  const isPeer = peersOf(internalAddress, networkInterfaces());
  const tlsPorts = { clock, logger, metrics, checkEveryMs: dependencies.checkTlsEveryMs };
  const apiTls = openServerTls('api', config.tls, undefined, tlsPorts);
  opened.use(apiTls?.tls);
  const internalTls = openServerTls('internal', config.internalTls, config.internalClientNames, tlsPorts);
  opened.use(internalTls?.tls);
  if (internalTls === undefined && !isLoopback(internalAddress))
    logger.warn('the internal listener speaks plain HTTP: keys are sent in the clear');
  const provider = kekProviderOf(config.kek, (message) => logger.warn(message));
  const stamp = provider.stamp();
  const vault = new Vault(await provider.load());
  const store = opened.use(await (dependencies.openStore ?? openWatchedStore)(config, logger));
  const state = await unseal(vault, store, clock, 'system');

  metrics.sealed.set(state.kind === 'sealed' ? 1 : 0);
  if (state.kind === 'sealed')
    logger.error(
      { reason: state.reason },
      'sealed: the KEK does not fit the store; add the right KEK to the ring and restart BunKMS',
    );
  else tellOfFaults(state, vault, logger);
  const audit = new AuditLog({ store, logger, metrics });
  const recorders = state.kind === 'sealed' ? undefined : startRecorders(audit, clock, opened);
  const exportSink =
    recorders?.exports ?? sealedSink(opened.use(await SealedRefusals.open(config.dataDir, logger)));
  const exports = new ExportRecorder({ audit, refusals: exportSink, metrics, clock, logger });
  const services =
    state.kind === 'sealed' || recorders === undefined
      ? undefined
      : createServices({
          ...{ config, state, vault, provider, stamp, store },
          ...{ audit, recorders, exports, clock, logger, metrics },
        });
  if (services !== undefined)
    await startUpkeep(services, { config, vault, store, clock, logger, metrics }, opened);

  const drain = new Drain(config.drainMs);
  const { api, internal } = await createListeners(
    {
      ...{ config, clock, logger, metrics, recorders, exports, services, drain, apiTls, internalTls },
      publicKey: state.publicKey,
      requestTimeoutMs: dependencies.requestTimeoutMs,
    },
    opened,
  );
  guardInternal(internal, isPeer, { clock, logger, metrics });

  const internalUrl = await listen(internal, internalTls, internalAddress, config.internalPort);
  const onGone = () => end(new Error('the address of the internal listener is gone'));
  opened.use(watchAddress(internalAddress, networkInterfaces, onGone));
  const apiUrl = await listen(api, apiTls, config.host, config.port);
  logger.info({ version: VERSION, apiUrl, internalUrl, sealed: state.kind === 'sealed' }, 'listening');

  const running = opened.move();
  let closing: Promise<void> | undefined;
  const close = () => {
    closing ??= running.disposeAsync();
    return closing;
  };
  return { apiUrl, internalUrl, drain, close };
}

type UpkeepDeps = Pick<ServiceDeps, 'config' | 'vault' | 'store' | 'clock' | 'logger' | 'metrics'>;

/** Begins what an unsealed service does by itself, until it closes. */
async function startUpkeep(
  services: Services,
  { config, vault, store, clock, logger, metrics }: UpkeepDeps,
  opened: AsyncDisposableStack,
): Promise<void> {
  await startKekUpkeep(services.kek.upkeep, logger, opened);
  metrics.observeDeletions(() => store.countDeletions().catch(() => undefined));
  metrics.observeRewrap(() => store.countNotWrappedBy(vault.currentKekId).catch(() => undefined));
  await adoptSealedRefusals(config.dataDir, store, clock);
  startKeySweep(new KeySweep(services.keys), opened);
  opened.use(every(SWEEP_MS, () => services.crypto.opened.sweep()));
  if (config.auditShip !== undefined)
    opened.use(createShipper(config.auditShip, config.dataDir, { store, logger, metrics }));
  opened.use(every(PRUNE_MS, () => prune(store, clock, logger)));
}

interface ListenerDeps extends ProblemDeps, Pick<ServiceDeps, 'config' | 'logger'> {
  /** Absent while the service is sealed. */
  readonly services: Services | undefined;
  readonly publicKey: ListenerOptions['publicKey'];
  readonly drain: Drain;
  readonly apiTls: ServerTls | undefined;
  readonly internalTls: ServerTls | undefined;
  readonly requestTimeoutMs: number | undefined;
}

/** Both listeners, which do not listen yet. */
async function createListeners(
  deps: ListenerDeps,
  opened: AsyncDisposableStack,
): Promise<{ readonly api: FastifyInstance; readonly internal: FastifyInstance }> {
  const { config, clock, logger, metrics, services, publicKey, drain } = deps;
  const { apiTls, internalTls, requestTimeoutMs } = deps;
  const gate = gateOf(services);
  const shares = createHttpShares(config.shares, clock);
  // Of their own: strangers who fill the API listener must not keep Bundoc from its keys.
  const { connectionsMax: max, connectionsOfAddressMax: ofAddressMax, isProxy } = config.shares;
  const internalConnections = new Connections({ prefix: 'internal ', clock, max, ofAddressMax, isProxy });
  for (const connections of [shares.connections, internalConnections])
    metrics.watchCuts(connections.share, () => connections.cuts);
  const site = config.console ? readSite(CONSOLE_FOLDER) : undefined;
  if (config.console && site === undefined) logger.warn('the console is not built: it is not served');
  const listenerOptions = {
    shares,
    drain,
    logger,
    clock,
    metrics,
    console: { version: VERSION, site },
    publicKey,
    sealed: services === undefined,
    services: gate,
    readiness: createReadiness(services === undefined ? undefined : gate, clock),
    requestTimeoutMs,
  };
  const { onApiProblem, onInternalProblem } = problemHooks(deps);
  const api = opened.adopt(await createApiListener(listenerOptions, apiTls, onApiProblem), (app) =>
    app.close(),
  );
  const internal = opened.adopt(
    await createInternalListener(
      { ...listenerOptions, shares: { ...shares, connections: internalConnections } },
      internalTls,
      onInternalProblem,
    ),
    (app) => app.close(),
  );
  return { api, internal };
}

interface ProblemDeps extends Pick<ServiceDeps, 'exports' | 'metrics' | 'clock'> {
  /** Absent while the service is sealed. */
  readonly recorders: AuditRecorders | undefined;
}

/** What each listener does with a refusal that it answers. */
function problemHooks({ recorders, exports, metrics, clock }: ProblemDeps): {
  readonly onApiProblem: OnProblem;
  readonly onInternalProblem: OnProblem;
} {
  const now = () => clock.now();
  // A sealed service encrypts nothing: what is asked of it in vain stands in the log.
  const onCryptoProblem = recorders === undefined ? () => undefined : cryptoAudit(recorders.crypto, now);
  const onExportProblem = exportAudit(exports);
  const onApiProblem: OnProblem = (request, error) => {
    onCryptoProblem(request, error);
    countHolderRefusal(metrics, error);
  };
  const onInternalProblem: OnProblem = (request, error) => {
    onExportProblem(request, error);
    onApiProblem(request, error);
  };
  return { onApiProblem, onInternalProblem };
}

/** Lets only peers of the internal network in. */
function guardInternal(
  internal: FastifyInstance,
  isPeer: (address: string) => boolean,
  { clock, logger, metrics }: Pick<ServiceDeps, 'clock' | 'logger' | 'metrics'>,
): void {
  const warn = boundedWarner(
    (peer, count) => logger.warn({ peer, count }, 'refused connections from outside the internal network'),
    () => clock.monotonic(),
  );
  guardPeers(internal.server, isPeer, (peer) => {
    metrics.peersRefused.inc();
    warn(peer);
  });
}

/** Two storages that want one key, or two copies of one storage: an operator has to look. */
function countHolderRefusal(metrics: Metrics, error: AppError): void {
  if (hasCode(error, 'key_held_elsewhere', 'storage_superseded'))
    metrics.holderRefusals.inc({ code: error.code });
}

/**
 * Ends the process in order, as an uncaught error does: anyone who runs it starts it again, and it begins
 * afresh.
 */
function end(error: Error): void {
  setImmediate(() => {
    throw error;
  });
}

function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.');
}

function openWatchedStore(config: BunkmsConfig, logger: Logger): Promise<KmsStore> {
  const onCrash = (error: Error) => {
    logger.fatal({ err: error }, 'the storage thread has ended');
    end(error);
  };
  return openStore(config, { onCrash, warn: (message) => logger.warn(message) });
}

interface ServiceDeps {
  readonly config: BunkmsConfig;
  readonly state: Unsealed;
  readonly vault: Vault;
  readonly provider: KekProvider;
  /** The provider's, from before the ring was loaded. */
  readonly stamp: string;
  readonly store: KmsStore;
  readonly audit: AuditLog;
  readonly recorders: AuditRecorders;
  readonly exports: ExportRecorder;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
}

function createServices({
  config,
  state,
  recorders,
  exports,
  provider,
  stamp,
  ...deps
}: ServiceDeps): Services {
  const { vault, store, audit, clock, logger, metrics } = deps;
  const { chainKey, signingKey, publicKey } = state;
  const keks = new Keks({
    ...{ vault, provider, stamp, store, chainKey, clock, logger },
    state: state.keks,
    caller: SYSTEM,
  });
  const keys: KeyDeps = { store, vault, keks, chainKey, audit, clock, logger };
  const { uses, crypto: failures } = recorders;
  const kek: KekDeps = { ...keys, keks, store };
  const service = randomUUID();
  const rewrap = new KeyRewrap({ ...kek, caller: SYSTEM, holder: service });
  return {
    store,
    audit,
    keys: { ...keys, exports, leaseTtlMs: config.leaseTtlMs },
    crypto: { ...keys, metrics, uses, failures, opened: new OpenedKeys(clock) },
    kek: { deps: kek, upkeep: new KekUpkeep({ ...kek, rewrap, service }) },
    tokens: new TokenService({ store, clock, logger, signingKey, kid: publicKey.kid, chainKey }),
    limits: new Limits(config.limits, clock),
    events: new EventFeed({ store, clock, logger, metrics }),
  };
}

function startKeySweep(sweep: KeySweep, opened: AsyncDisposableStack): void {
  const timer = every(KEY_SWEEP_MS, () => void sweep.run());
  // Runs before the store closes.
  opened.defer(async () => {
    timer[Symbol.dispose]();
    await sweep.settled();
  });
  void sweep.run();
}

function tellOfFaults({ keks }: Unsealed, vault: Vault, logger: Logger): void {
  const missing = neededKeks(keks).filter((kekId) => !vault.holds(kekId));
  if (missing.length > 0)
    logger.warn(
      { missing },
      'the ring lacks KEKs that are not retired: what is wrapped with them does not open',
    );
}

async function startKekUpkeep(
  upkeep: KekUpkeep,
  logger: Logger,
  opened: AsyncDisposableStack,
): Promise<void> {
  await upkeep.look().catch((error: unknown) => {
    logger.warn({ err: error }, 'failed to record the KEKs of the ring; trying again');
  });
  const timer = every(KEK_UPKEEP_MS, () => void upkeep.run());
  // Runs before the store closes.
  opened.defer(async () => {
    timer[Symbol.dispose]();
    await upkeep.stop();
  });
  void upkeep.run();
}

function prune(store: TokenStore, clock: Clock, logger: Logger): void {
  pruneTokens(store, clock).then(
    (count) => count > 0 && logger.info({ count }, 'removed tokens that expired long ago'),
    (error: unknown) => logger.warn({ err: error }, 'failed to remove expired tokens; trying again'),
  );
}

type ShipperDeps = Pick<ServiceDeps, 'store' | 'logger' | 'metrics'>;

function createShipper(target: ShipTarget, dataDir: string, deps: ShipperDeps): AuditShipper {
  const sink = target.kind === 'stdout' ? outputSink() : fileSink(target.path);
  const position = positionFile(join(dataDir, 'audit-ship.json'), sink.target);
  const shipper = new AuditShipper({ ...deps, sink, position });
  deps.metrics.observeShipLag(() => shipper.lag());
  return shipper;
}

function gateOf(services: Services | undefined): ServiceGate {
  return () => {
    if (services === undefined) throw new AppError('sealed');
    return services;
  };
}

function startRecorders(audit: AuditLog, clock: Clock, opened: AsyncDisposableStack): AuditRecorders {
  const recorders = new AuditRecorders(audit, clock);
  const timer = every(SWEEP_MS, () => recorders.sweep());
  // Runs after the listeners have closed and before the store does.
  opened.defer(async () => {
    timer[Symbol.dispose]();
    recorders.flush();
    await audit.drain();
  });
  return recorders;
}

/** Records wait in a file for the chain; the file is bounded for all callers. */
function sealedSink(refusals: SealedRefusals): RefusalSink {
  const write = refusals.record.bind(refusals);
  return { named: write, anonymous: (_network, record) => write(record) };
}

/** @returns the URL, with the port that was really taken. */
async function listen(
  app: FastifyInstance,
  tls: ServerTls | undefined,
  host: string,
  port: number,
): Promise<string> {
  await app.listen({ host, port });
  const address = app.server.address();
  const taken = typeof address === 'object' && address !== null ? address.port : port;
  const scheme = tls === undefined ? 'http' : 'https';
  return `${scheme}://${isIPv6(host) ? `[${host}]` : host}:${taken}`;
}
