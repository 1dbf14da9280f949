import type { KeyObject } from 'node:crypto';
import { existsSync } from 'node:fs';
import { parserFor } from '@bundoc/shared/cli/command';
import { receiptSchema } from '@bundoc/shared/contract/audit';
import { createLogger, type Logger } from '@bundoc/shared/logs/logger';
import type { Environment } from '@bundoc/shared/process/config';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { AuditLog } from '../audit/log.ts';
import { type BunkmsConfig, readConfig } from '../config.ts';
import type { KekDeps } from '../kek/kek-rotation.ts';
import { createMetrics } from '../metrics.ts';
import { openStore, type StoreLocation } from '../open-store.ts';
import { CLI_CALLER } from '../records/caller.ts';
import type { KmsStore } from '../store/port.ts';
import { databasePathOf } from '../store/sqlite/sqlite-store.ts';
import { TokenService } from '../tokens/token-service.ts';
import { StoreTrust } from '../trust/store-trust.ts';
import { trustedStore } from '../trust/trusted-store.ts';
import { kekProviderOf, type RingPorts } from '../vault/kek-provider.ts';
import { Keks } from '../vault/keks.ts';
import { type Unsealed, unseal } from '../vault/unseal.ts';
import { Vault } from '../vault/vault.ts';
import { CliFailure, KekUnfit } from './errors.ts';
import { commandKeys } from './outside.ts';

/** The installation that a command works on. It shares the store with a running server. */
export interface CliKms {
  readonly store: KmsStore;
  /** The store itself, without read-back: for the commands that mend it. */
  readonly database: KmsStore;
  readonly vault: Vault;
  readonly keks: Keks;
  readonly state: Unsealed;
  readonly tokens: TokenService;
  /** Whether the database is as it should be. While it is not, every write fails with `sealed`. */
  readonly trust: StoreTrust;
}

/**
 * Runs `action` on the store of the configured installation, and closes it.
 *
 * @throws CliFailure when no installation exists.
 */
export async function withStore<T>(
  environment: Environment,
  action: (store: KmsStore) => Promise<T>,
): Promise<T> {
  const location = readConfig(environment);
  if (!mayHaveStore(location))
    throw new CliFailure(`there is no store in ${location.dataDir} (BUNKMS_DATA_DIR): ${NO_STORE}`);
  await using store = await openCliStore(location);
  if ((await store.readInstallation()) === undefined) throw new CliFailure(`the store is empty: ${NO_STORE}`);
  return await action(store);
}

/** A new store must not come into the place of one that can be restored. */
const NO_STORE =
  'if BunKMS had one, restore its backup with "bunkms restore <file>"; run "bunkms init" only for a new installation, or when there is no backup';

/** {@link withStore}, unsealed. @throws CliFailure when the KEK does not fit. */
export function withKms<T>(environment: Environment, action: (kms: CliKms) => Promise<T>): Promise<T> {
  return withStore(environment, async (store) => action(await unsealStore(environment, store)));
}

/**
 * Creates the installation if it does not exist. @throws CliFailure when the KEK does not fit an existing
 * one.
 */
export async function unsealStore(environment: Environment, database: KmsStore): Promise<CliKms> {
  const ports = { clock: systemClock, logger: silentLogger() };
  const trust = new StoreTrust({ store: database, logger: ports.logger, metrics: createMetrics() });
  const store = trustedStore(database, trust);
  await trust.check();
  const isNew = (await database.readInstallation()) === undefined;
  const remedy = isNew ? undefined : () => 'put the KEK of the installation there';
  const { provider, stamp, vault } = await openRing(readConfig(environment), { warn, remedy });
  const state = await unseal(vault, store, systemClock, 'cli');
  if (state.kind === 'sealed') throw new KekUnfit(state.reason);
  await trust.check();
  const { signingKey, publicKey, chainKey, keks: known } = state;
  const tokens = new TokenService({ store, ...ports, signingKey, kid: publicKey.kid, chainKey });
  const ring = { vault, provider, stamp, store, chainKey };
  const keks = new Keks({ ...ring, ...ports, state: known, caller: CLI_CALLER });
  return { store, database, vault, keks, state, tokens, trust };
}

/** A logger without output: commands report errors themselves. */
export function silentLogger(): Logger {
  return createLogger({ service: 'bunkms', level: 'silent' });
}

/** The dependencies of commands that work on keys. */
export interface CliDeps extends KekDeps {
  readonly store: KmsStore;
}

/**
 * Runs `action` on the keys of the installation while a server may run. Its audit records are written when
 * this resolves.
 */
export function withKeys<T>(environment: Environment, action: (deps: CliDeps) => Promise<T>): Promise<T> {
  return withKms(environment, async ({ store, vault, keks, state: { chainKey } }) => {
    await using outside = commandKeys(readConfig(environment).outsideKeysFile);
    const logger = silentLogger();
    const audit = new AuditLog({ store, logger, metrics: createMetrics() });
    try {
      return await action({ store, vault, keks, chainKey, audit, clock: systemClock, logger, outside });
    } finally {
      await audit.drain();
    }
  });
}

/** `42:9f3a…`: a receipt from an export or `audit head`. */
export const receipt = parserFor('seq:hash, with 64 hex digits, as in the answer of an export', (text) => {
  const [seq, hash] = text.split(':');
  return receiptSchema.safeParse({ seq: Number(seq), hash }).data;
});

/** The pages of a list, each read after the cursor of the one before. */
export async function* pagesOf<Page extends { readonly next_cursor?: string | undefined }>(
  read: (after: string | undefined) => Promise<Page>,
): AsyncGenerator<Page> {
  for (let after: string | undefined, more = true; more; more = after !== undefined) {
    const page = await read(after);
    yield page;
    after = page.next_cursor;
  }
}

/** Whether an installation exists. Never creates one. */
export async function hasStore(location: StoreLocation): Promise<boolean> {
  if (!mayHaveStore(location)) return false;
  await using store = await openCliStore(location);
  return (await store.readInstallation()) !== undefined;
}

/** The KEK ring of the configuration, for a backup. */
export function loadVault(environment: Environment): Promise<Vault> {
  const remedy = () => 'put the KEK of the backup there: under another one, nothing of it opens';
  return loadRing(readConfig(environment), { warn, remedy });
}

/** The KEK ring of a configuration. @throws as `KekProvider.load`. */
export async function loadRing(config: BunkmsConfig, ports: Omit<RingPorts, 'findOutside'>): Promise<Vault> {
  return (await openRing(config, ports)).vault;
}

/** The KEKs themselves, for a command that copies them. @throws as `KekProvider.load`. */
export async function loadKeks({ kek, outsideKeysFile }: BunkmsConfig): Promise<readonly KeyObject[]> {
  await using outside = commandKeys(outsideKeysFile);
  return await kekProviderOf(kek, { warn: () => undefined, findOutside: outside.find }).load();
}

/** Opens the ring once, with outside keys that are closed again. */
async function openRing({ kek, outsideKeysFile }: BunkmsConfig, ports: Omit<RingPorts, 'findOutside'>) {
  await using outside = commandKeys(outsideKeysFile);
  const provider = kekProviderOf(kek, { ...ports, findOutside: outside.find });
  const stamp = provider.stamp();
  return { provider, stamp, vault: new Vault(await provider.load()) };
}

function warn(message: string): void {
  console.error(`bunkms: warning: ${message}`);
}

/** False when opening the store would create an empty one. */
function mayHaveStore({ storage, dataDir }: StoreLocation): boolean {
  return storage.kind === 'postgres' || existsSync(databasePathOf(dataDir));
}

/**
 * Opens the store without handlers for crashes and server warnings: pending calls fail, and the service logs
 * the warnings.
 */
export function openCliStore(location: StoreLocation): Promise<KmsStore> {
  return openStore(location, { onCrash: () => undefined, warn: () => undefined });
}
