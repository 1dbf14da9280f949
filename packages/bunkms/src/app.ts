import { networkInterfaces } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';
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
import { openCopies } from './compose-copies.ts';
import { createListeners } from './compose-listeners.ts';
import { createServices, startUpkeep, type UpkeepIntervals } from './compose-services.ts';
import type { BunkmsConfig } from './config.ts';
import { peersOf, resolveInternalAddress, watchAddress } from './http/internal-network.ts';
import { createMetrics, type Metrics } from './metrics.ts';
import { OF_NEW_STORE, openStore, placeOf } from './open-store.ts';
import { OutsideKeys } from './outside/outside-keys.ts';
import { NO_OUTSIDE_KEYS } from './outside/port.ts';
import { SYSTEM } from './records/caller.ts';
import { draftNow } from './records/draft-now.ts';
import type { KmsStore } from './store/port.ts';
import { StoreTrust } from './trust/store-trust.ts';
import { trustedStore } from './trust/trusted-store.ts';
import { Unsealer } from './unsealing.ts';
import { kekProviderOf } from './vault/kek-provider.ts';
import { type SlotTimes, SlotWatch } from './vault/slot-watch.ts';

/** The parts that a caller may replace, as tests do. */
export interface BunkmsDependencies extends UpkeepIntervals {
  readonly clock?: Clock;
  readonly logger?: Logger;
  readonly metrics?: Metrics;
  /** Interval between checks of the files of certificates and outside keys, milliseconds. */
  readonly checkFilesEveryMs?: number | undefined;
  /** How often the slots of a sealed ring are asked. */
  readonly slotTimes?: SlotTimes;
  /** Times of both listeners. */
  readonly http?: HttpTimes;
  /** Opens the store; the service closes it. */
  readonly openStore?: (config: BunkmsConfig, logger: Logger) => Promise<KmsStore>;
}

export interface RunningBunkms extends RunningService {
  readonly drain: Drain;
  /** The URL of the API listener, without a trailing slash. */
  readonly apiUrl: string;
  readonly internalUrl: string;
  /** Resolves when the owners of all slots of the sealed ring have withdrawn them: the service must end. */
  readonly withdrawn: Promise<void>;
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
  const { clock = systemClock, metrics = createMetrics(), slotTimes } = dependencies;
  const logger = dependencies.logger ?? createLogger({ service: 'bunkms', level: config.logLevel });
  await using opened = new AsyncDisposableStack();

  const internalAddress = await resolveInternalAddress(config.internalHost);
  const isPeer = peersOf(internalAddress, networkInterfaces());
  const filePorts = { clock, logger, metrics, checkEveryMs: dependencies.checkFilesEveryMs };
  const apiTls = openServerTls('api', config.tls, undefined, filePorts);
  opened.use(apiTls?.tls);
  const internalTls = openServerTls('internal', config.internalTls, config.internalClientNames, filePorts);
  opened.use(internalTls?.tls);
  if (internalTls === undefined && !isLoopback(internalAddress))
    logger.warn('the internal listener speaks plain HTTP: keys are sent in the clear');
  const outside = openOutsideKeys(config, filePorts, opened);
  const provider = kekProviderOf(config.kek, {
    warn: (message) => logger.warn(message),
    findOutside: outside?.find.bind(outside),
  });
  const database = opened.use(await (dependencies.openStore ?? openWatchedStore)(config, logger));
  const trust = new StoreTrust({ store: database, logger, metrics });
  const store = trustedStore(database, trust);
  const ports = { config, clock, logger, metrics, store, trust };
  await trust.check();
  const isNew = (await database.readInstallation()) === undefined;
  const sealed = opened.use(new SealedRecords({ dataDir: config.dataDir, clock, logger }));
  const audit = new AuditLog({ store, logger, metrics, sealed });
  const recorders = startRecorders(audit, clock, opened);
  const copies = openCopies(config, { ...ports, database }, opened);
  const session = opened.use(new AsyncDisposableStack());
  const withdrawal = withdrawalTo(audit, clock);
  const isUnsealed = () => unsealer.unsealed !== undefined;
  const refusals = refusalsOf(isUnsealed, recorders.exports, sealedSink(sealed));
  const exports = new ExportRecorder({ audit, refusals, metrics, clock, logger });
  const unsealer: Unsealer = opened.use(
    new Unsealer({
      ...ports,
      provider,
      outsideStamp: () => outside?.stamp ?? '',
      compose: async (state, vault, stamp) => {
        // Again, with the chain.
        await trust.check();
        const services = createServices({
          ...ports,
          state,
          vault,
          provider,
          stamp,
          audit,
          recorders,
          exports,
          outside: outside ?? NO_OUTSIDE_KEYS,
        });
        await startUpkeep(services, { ...ports, vault, sealed, copies, intervals: dependencies }, session);
        session.use(new SlotWatch({ ...ports, provider, times: slotTimes, ...withdrawal }));
        return { services, publicKey: state.publicKey };
      },
    }),
  );
  await unsealer.begin();
  if (isNew && isUnsealed()) logger.info(`created a new store in ${placeOf(config)}: ${OF_NEW_STORE}`);

  const drain = new Drain(config.drainMs);
  const network = { drain, apiTls, internalTls, isPeer, times: dependencies.http };
  const served = { ...ports, ...network, unsealer, outside, recorders, exports };
  const { apiUrl, internalUrl } = await listenBoth(served, internalAddress, opened);
  logger.info({ version: VERSION, apiUrl, internalUrl, sealed: !isUnsealed() }, 'listening');

  const running = opened.move();
  let closing: Promise<void> | undefined;
  const close = () => {
    closing ??= running.disposeAsync();
    return closing;
  };
  return { apiUrl, internalUrl, drain, withdrawn: withdrawal.withdrawn, close };
}

/** How long the record of a withdrawal may delay it, milliseconds: the store may hang. */
const RECORD_MS = 5_000;

/**
 * Records that the ring was withdrawn, or logs the record. `withdrawn` resolves after that, or after
 * {@link RECORD_MS}.
 */
function withdrawalTo(audit: AuditLog, clock: Clock) {
  const { promise: withdrawn, resolve } = Promise.withResolvers<void>();
  const onWithdrawn = (slots: readonly string[]) => {
    const record = { severity: 'CRITICAL', detail: { slots: slots.join(', ') } } as const;
    const recorded = audit.record(draftNow({ clock }, SYSTEM, 'seal.withdrawn', record));
    void Promise.race([recorded, pause(RECORD_MS, undefined, { ref: false })]).then(() => resolve());
  };
  return { withdrawn, onWithdrawn };
}

/** Listens, on the internal network first. @returns the URLs. */
async function listenBoth(
  served: Parameters<typeof createListeners>[0],
  internalAddress: string,
  opened: AsyncDisposableStack,
): Promise<{ readonly apiUrl: string; readonly internalUrl: string }> {
  const { config } = served;
  const { api, internal } = await createListeners(served, opened);
  const internalUrl = await listen(internal, {
    host: internalAddress,
    port: config.internalPort,
    prefix: 'BUNKMS_INTERNAL_',
  });
  const onGone = () => end(new Error('the address of the internal listener is gone'));
  opened.use(watchAddress(internalAddress, networkInterfaces, onGone));
  const apiUrl = await listen(api, { host: config.host, port: config.port, prefix: 'BUNKMS_' });
  return { apiUrl, internalUrl };
}

/** Ends the process in order, as after an uncaught error, so that its supervisor restarts it. */
export function end(error: Error): void {
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

/** The outside keys that the configuration names. */
function openOutsideKeys(
  { outsideKeysFile: file }: BunkmsConfig,
  ports: { readonly logger: Logger; readonly metrics: Metrics; readonly checkEveryMs: number | undefined },
  opened: AsyncDisposableStack,
): OutsideKeys | undefined {
  const outside =
    file === undefined
      ? undefined
      : opened.use(new OutsideKeys({ ...ports, file, calls: ports.metrics.outsideCalls }));
  ports.metrics.observeOutsideKeys(async () => outside?.faults.length ?? 0);
  return outside;
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

/** Where refused exports are recorded now. */
function refusalsOf(
  isUnsealed: () => boolean,
  recorder: ExportRefusalSink,
  sealed: ExportRefusalSink,
): ExportRefusalSink {
  const sink = () => (isUnsealed() ? recorder : sealed);
  return {
    named: (record) => sink().named(record),
    anonymous: (network, record) => sink().anonymous(network, record),
  };
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
