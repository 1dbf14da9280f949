import { randomUUID } from 'node:crypto';
import type { Logger } from '@bundoc/shared/logs/logger';
import { type Clock, every } from '@bundoc/shared/runtime/clock';
import type { ExportRecorder } from './audit/export-recorder.ts';
import type { AuditLog } from './audit/log.ts';
import type { AuditRecorders } from './audit/recorders.ts';
import type { SealedRecords } from './audit/sealed-records.ts';
import { type Copies, startCopies } from './compose-copies.ts';
import type { BunkmsConfig } from './config.ts';
import { OpenedKeys } from './encryption/opened-keys.ts';
import { EventFeed } from './events/event-feed.ts';
import { Limits } from './http/limits.ts';
import type { Services } from './http/services.ts';
import type { KekDeps } from './kek/kek-rotation.ts';
import { KekUpkeep } from './kek/kek-upkeep.ts';
import { KeyRewrap } from './kek/rewrap-keys.ts';
import { VersionProtection } from './keys/protect-versions.ts';
import type { KeyDeps } from './keys/stored-key.ts';
import { KeySweep } from './keys/sweep-keys.ts';
import type { Metrics } from './metrics.ts';
import type { OutsideKeyPort } from './outside/port.ts';
import { SYSTEM } from './records/caller.ts';
import type { KmsStore } from './store/port.ts';
import type { TokenStore } from './store/tokens.ts';
import { pruneTokens } from './tokens/prune-tokens.ts';
import { TokenService } from './tokens/token-service.ts';
import { Receipts } from './trust/receipts.ts';
import type { StoreTrust } from './trust/store-trust.ts';
import type { KekProvider } from './vault/kek-provider.ts';
import { Keks } from './vault/keks.ts';
import type { Unsealed } from './vault/unseal.ts';
import type { Vault } from './vault/vault.ts';

const PRUNE_MS = 3_600_000;
/** Interval between checks of the schema and of the chain, milliseconds. */
const WATCH_MS = 1_000;
/** Interval between checks of the KEK ring and of changes of the KEKs by other processes, milliseconds. */
const KEK_UPKEEP_MS = 5_000;
/** Interval between sweeps for keys whose deletion or rotation is due, milliseconds. */
const KEY_SWEEP_MS = 15_000;
/** Interval between looks at older versions of keys of customers, milliseconds. */
const PROTECT_MS = 60_000;
/** Interval between sweeps of cached keys, milliseconds. */
const SWEEP_MS = 5_000;

export interface ServiceDeps {
  readonly config: BunkmsConfig;
  readonly state: Unsealed;
  readonly vault: Vault;
  readonly provider: KekProvider;
  /** The stamp of the provider from before the ring was loaded. */
  readonly stamp: string;
  readonly store: KmsStore;
  readonly audit: AuditLog;
  readonly recorders: AuditRecorders;
  readonly exports: ExportRecorder;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly trust: StoreTrust;
  readonly outside: OutsideKeyPort;
}

/** The services of an unsealed BunKMS. */
export function createServices({
  config,
  state,
  recorders,
  exports,
  provider,
  stamp,
  trust,
  ...deps
}: ServiceDeps): Services {
  const { vault, store, audit, clock, logger, metrics, outside } = deps;
  const { chainKey, signingKey, publicKey } = state;
  const keks = new Keks({
    vault,
    provider,
    stamp,
    store,
    chainKey,
    clock,
    logger,
    state: state.keks,
    caller: SYSTEM,
  });
  const keys: KeyDeps = { store, vault, keks, chainKey, audit, clock, logger, outside };
  const { uses, crypto: failures } = recorders;
  const kek: KekDeps = { ...keys, keks, store };
  const service = randomUUID();
  const rewrap = new KeyRewrap({ ...kek, caller: SYSTEM, holder: service });
  return {
    store,
    audit,
    keys: { ...keys, exports, leaseTtlMs: config.leaseTtlMs },
    crypto: { ...keys, metrics, uses, failures, opened: new OpenedKeys(clock, config.leaseTtlMs) },
    kek: { deps: kek, upkeep: new KekUpkeep({ ...kek, rewrap, service }) },
    tokens: new TokenService({ store, clock, logger, signingKey, kid: publicKey.kid, chainKey }),
    limits: new Limits(config.limits, clock),
    events: new EventFeed({ store, chainKey, isSealed: () => trust.isSealed, clock, logger, metrics }),
    receipts: new Receipts({ chainKey, trust, metrics }),
  };
}

function startProtection(protection: VersionProtection, everyMs: number, opened: AsyncDisposableStack): void {
  const timer = every(everyMs, () => void protection.run());
  // Runs before the store closes.
  opened.defer(async () => {
    timer[Symbol.dispose]();
    await protection.stop();
  });
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

type UpkeepDeps = Pick<
  ServiceDeps,
  'config' | 'vault' | 'store' | 'clock' | 'logger' | 'metrics' | 'trust'
> & {
  readonly sealed: SealedRecords;
  readonly copies: Copies;
  readonly intervals: UpkeepIntervals;
};

/** Intervals that tests shorten, milliseconds. */
export interface UpkeepIntervals {
  /** Between checks of the schema and of the chain. */
  readonly watchEveryMs?: number;
  /** Between looks at older versions of keys of customers. */
  readonly protectEveryMs?: number;
  /** Between flushes of the chain to the archive. */
  readonly chainEveryMs?: number;
}

/** Starts the periodic work of an unsealed service, until it closes. */
export async function startUpkeep(
  services: Services,
  { config, vault, store, sealed, copies, clock, logger, metrics, trust, intervals }: UpkeepDeps,
  opened: AsyncDisposableStack,
): Promise<void> {
  startWatch({ trust, sealed, store, logger, intervals }, opened);
  await startKekUpkeep(services.kek.upkeep, logger, opened);
  metrics.observeDeletions(() => store.countDeletions().catch(() => undefined));
  metrics.observeRewrap(() => store.countNotWrappedBy(vault.currentKekId).catch(() => undefined));
  await sealed.adopt(store);
  startKeySweep(new KeySweep(services.keys), opened);
  if (config.outsideKeysFile !== undefined)
    startProtection(
      new VersionProtection({ ...services.keys, store, caller: SYSTEM, holder: randomUUID() }),
      intervals.protectEveryMs ?? PROTECT_MS,
      opened,
    );
  opened.use(every(SWEEP_MS, () => services.crypto.opened.sweep()));
  opened.use(every(PRUNE_MS, () => prune(store, clock, logger)));
  const { chainKey } = services.keys;
  const { dataDir } = config;
  const ports = { dataDir, store, vault, chainKey, trust, clock, logger, metrics };
  startCopies(copies, { ...ports, chainEveryMs: intervals.chainEveryMs }, opened);
}

async function startKekUpkeep(
  upkeep: KekUpkeep,
  logger: Logger,
  opened: AsyncDisposableStack,
): Promise<void> {
  await upkeep.poll().catch((error: unknown) => {
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

/** Checks regularly whether the database is still trusted, or trusted again. */
function startWatch(
  {
    trust,
    sealed,
    store,
    logger,
    intervals,
  }: Pick<UpkeepDeps, 'trust' | 'sealed' | 'store' | 'logger' | 'intervals'>,
  opened: AsyncDisposableStack,
): void {
  let running: Promise<void> | undefined;
  const look = () =>
    trust
      .check()
      .then(() => (trust.isSealed ? undefined : sealed.adopt(store)))
      // The store is away: requests say so.
      .catch((error: unknown) => logger.debug({ err: error }, 'the database cannot be checked'))
      .finally(() => {
        running = undefined;
      });
  const timer = every(intervals.watchEveryMs ?? WATCH_MS, () => {
    running ??= look();
  });
  // Runs before the store closes.
  opened.defer(async () => {
    timer[Symbol.dispose]();
    await running;
  });
}

function prune(store: TokenStore, clock: Clock, logger: Logger): void {
  pruneTokens(store, clock).then(
    (count) => count > 0 && logger.info({ count }, 'removed tokens that expired long ago'),
    (error: unknown) => logger.warn({ err: error }, 'failed to remove expired tokens; trying again'),
  );
}
