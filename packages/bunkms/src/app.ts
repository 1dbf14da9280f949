import { networkInterfaces } from 'node:os';
import { listen } from '@bundoc/shared/http/listen';
import type { HttpTimes } from '@bundoc/shared/http/server';
import { createLogger, type Logger } from '@bundoc/shared/logs/logger';
import { Drain } from '@bundoc/shared/process/drain';
import type { RunningService } from '@bundoc/shared/process/lifecycle';
import { VERSION } from '@bundoc/shared/process/version';
import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';
import { openServerTls } from '@bundoc/shared/tls/server-tls';
import { ExportRecorder } from './audit/export-recorder.ts';
import { AuditLog } from './audit/log.ts';
import { AuditRecorders, type ExportRefusalSink } from './audit/recorders.ts';
import { SealedRecords } from './audit/sealed-records.ts';
import { createListeners } from './compose-listeners.ts';
import { createServices, openBackupFolder, startUpkeep } from './compose-services.ts';
import type { BunkmsConfig } from './config.ts';
import { peersOf, resolveInternalAddress, watchAddress } from './http/internal-network.ts';
import { createMetrics, type Metrics } from './metrics.ts';
import { OF_NEW_STORE, openStore, placeOf } from './open-store.ts';
import { neededKeks } from './records/kek-state.ts';
import type { KmsStore } from './store/port.ts';
import { StoreTrust } from './trust/store-trust.ts';
import { trustedStore } from './trust/trusted-store.ts';
import { kekProviderOf } from './vault/kek-provider.ts';
import { type Unsealed, unseal } from './vault/unseal.ts';
import { Vault } from './vault/vault.ts';

/** The parts that a caller may replace, as tests do. */
export interface BunkmsDependencies {
  readonly clock?: Clock;
  readonly logger?: Logger;
  readonly metrics?: Metrics;
  /** Interval between checks of the certificate files, milliseconds. */
  readonly checkTlsEveryMs?: number;
  /** Interval between checks of the schema and of the chain, milliseconds. */
  readonly watchEveryMs?: number;
  /** Times of both listeners. */
  readonly http?: HttpTimes;
  /** Opens the store; the service closes it. */
  readonly openStore?: (config: BunkmsConfig, logger: Logger) => Promise<KmsStore>;
}

export interface RunningBunkms extends RunningService {
  /** The URL of the API listener, without a trailing slash. */
  readonly apiUrl: string;
  readonly internalUrl: string;
  /** Ends running requests, writes the waiting audit records, then closes the store. Idempotent. */
  close(): Promise<void>;
}

/**
 * Starts the key service: composes it, opens its store, unseals it if the KEK fits, and listens. With another
 * KEK, the service starts sealed and says so.
 *
 * @throws ConfigError for an unusable KEK ring or internal address, AppError when the store cannot be
 *   opened. Everything that was opened is closed first.
 */
export async function startBunkms(
  config: BunkmsConfig,
  dependencies: BunkmsDependencies = {},
): Promise<RunningBunkms> {
  const { clock = systemClock, metrics = createMetrics(), watchEveryMs } = dependencies;
  const logger = dependencies.logger ?? createLogger({ service: 'bunkms', level: config.logLevel });
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
  const database = opened.use(await (dependencies.openStore ?? openWatchedStore)(config, logger));
  const trust = new StoreTrust({ store: database, logger, metrics });
  const store = trustedStore(database, trust);
  const ports = { config, clock, logger, metrics, store, trust };
  await trust.check();
  const isNew = (await database.readInstallation()) === undefined;
  const state = await unseal(vault, store, clock, 'system');
  if (isNew) logger.info(`created a new store in ${placeOf(config)}: ${OF_NEW_STORE}`);
  // Again, with the chain.
  await trust.check();

  metrics.sealed.set(state.kind === 'sealed' || trust.isSealed ? 1 : 0);
  if (state.kind === 'sealed')
    logger.error(
      { reason: state.reason },
      'sealed: the KEK does not fit the store; add the right KEK to the ring and restart BunKMS',
    );
  else tellOfFaults(state, vault, logger);
  const sealed = opened.use(new SealedRecords({ dataDir: config.dataDir, clock, logger }));
  const audit = new AuditLog({ store, logger, metrics, sealed });
  const recorders = state.kind === 'sealed' ? undefined : startRecorders(audit, clock, opened);
  const refusals = recorders?.exports ?? sealedSink(sealed);
  const exports = new ExportRecorder({ audit, refusals, metrics, clock, logger });
  const services =
    state.kind === 'sealed' || recorders === undefined
      ? undefined
      : createServices({ ...ports, state, vault, provider, stamp, audit, recorders, exports });
  const backups = openBackupFolder(config, { ...ports, database });
  const upkeep = { ...ports, vault, sealed, backups, watchEveryMs };
  if (services !== undefined) await startUpkeep(services, upkeep, opened);

  const drain = new Drain(config.drainMs);
  const { publicKey } = state;
  const network = { drain, apiTls, internalTls, isPeer, publicKey, times: dependencies.http };
  const served = { ...ports, ...network, recorders, exports, services };
  const { api, internal } = await createListeners(served, opened);

  const internalUrl = await listen(internal, {
    host: internalAddress,
    port: config.internalPort,
    prefix: 'BUNKMS_INTERNAL_',
  });
  const onGone = () => end(new Error('the address of the internal listener is gone'));
  opened.use(watchAddress(internalAddress, networkInterfaces, onGone));
  const apiUrl = await listen(api, { host: config.host, port: config.port, prefix: 'BUNKMS_' });
  logger.info({ version: VERSION, apiUrl, internalUrl, sealed: state.kind === 'sealed' }, 'listening');

  const running = opened.move();
  let closing: Promise<void> | undefined;
  const close = () => {
    closing ??= running.disposeAsync();
    return closing;
  };
  return { apiUrl, internalUrl, drain, close };
}

/** Ends the process in order, as after an uncaught error, so that its supervisor restarts it. */
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

function tellOfFaults({ keks }: Unsealed, vault: Vault, logger: Logger): void {
  const missing = neededKeks(keks).filter((kekId) => !vault.holds(kekId));
  if (missing.length > 0)
    logger.warn(
      { missing },
      'the ring lacks KEKs that are not retired: what is wrapped with them does not open',
    );
}

function startRecorders(audit: AuditLog, clock: Clock, opened: AsyncDisposableStack): AuditRecorders {
  const recorders = new AuditRecorders(audit, clock);
  // Runs after the listeners have closed and before the store does.
  opened.defer(async () => {
    recorders.flush();
    await audit.drain();
  });
  return recorders;
}

/** Records wait in a file until the service is unsealed; its size is bounded for all callers together. */
function sealedSink(sealed: SealedRecords): ExportRefusalSink {
  return {
    named: (record) => {
      sealed.record(record);
      return undefined;
    },
    anonymous: (_network, record) => sealed.record(record),
  };
}
