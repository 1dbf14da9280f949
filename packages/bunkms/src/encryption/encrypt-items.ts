import type { KeyObject } from 'node:crypto';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import { OpenError } from '@bundoc/shared/crypto/aead';
import type { KeyUses } from '../audit/key-uses.ts';
import type { RefusalSink } from '../audit/recorders.ts';
import { type KeyDeps, stampOf } from '../keys/stored-key.ts';
import type { Caller } from '../records/caller.ts';
import { draftNow } from '../records/draft-now.ts';
import { ciphertextKeyOf, decryptFrom, encryptTo } from './ciphertext.ts';
import type { OpenedKey, OpenedKeys } from './opened-keys.ts';

/**
 * Encryption under keys that never leave the service. Each request uses the current state of the key in the
 * store. So a request that begins after a key was disabled or destroyed is refused. No result is returned
 * before a durable record covers it.
 */
export interface CryptoDeps extends KeyDeps {
  readonly uses: KeyUses;
  readonly opened: OpenedKeys;
  readonly metrics: {
    readonly cryptoItems: {
      inc(labels: { readonly operation: string; readonly outcome: string }, count: number): void;
    };
  };
  readonly failures: Pick<RefusalSink, 'named'>;
}

export const CRYPTO_ACTIONS = {
  encrypt: 'key.encrypt',
  decrypt: 'key.decrypt',
  rewrap: 'key.rewrap',
} as const;
export type CryptoOperation = keyof typeof CRYPTO_ACTIONS;

export interface PlaintextItem {
  readonly plaintext: Buffer;
  readonly aad: Buffer;
}

export interface CiphertextItem {
  readonly ciphertext: Buffer;
  readonly aad: Buffer;
}

/** The result of an item, or why it failed. An item that was invalid from the start is passed through. */
export type ItemResult<T> = T | AppError;

export interface EncryptedItem {
  readonly ciphertext: Buffer;
  readonly version: number;
}

export interface DecryptedItem {
  /** The caller wipes it. */
  readonly plaintext: Buffer;
  readonly version: number;
}

export interface RewrappedItem extends EncryptedItem {
  readonly fromVersion: number;
}

/**
 * Encrypts under the current version. @throws AppError as {@link decryptItems}, and the fault of the current
 * version.
 */
export function encryptItems(
  deps: CryptoDeps,
  name: string,
  items: readonly ItemResult<PlaintextItem>[],
  caller: Caller,
): Promise<ItemResult<EncryptedItem>[]> {
  return use(deps, 'encrypt', name, caller, async (key) => {
    const current = await currentOf(deps, key);
    return each(items, ({ plaintext, aad }) => ({
      ciphertext: encryptTo(current.identity, current.key, plaintext, aad),
      version: current.identity.version,
    }));
  });
}

/**
 * Opens ciphertexts of any existing version. An item that does not open fails with `decryption_failed`,
 * whatever the reason. An item that names a destroyed or damaged version says so.
 *
 * @throws AppError `key_not_found`, `key_disabled`, `key_pending_deletion`, `key_destroyed`, `key_damaged`,
 *   `audit_unavailable`; `unauthenticated` when the token was revoked. Then no item has a result.
 */
export function decryptItems(
  deps: CryptoDeps,
  name: string,
  items: readonly ItemResult<CiphertextItem>[],
  caller: Caller,
): Promise<ItemResult<DecryptedItem>[]> {
  return use(deps, 'decrypt', name, caller, async (key) => {
    const keys = await keysOf(deps, key, items);
    return each(items, (item) => decrypted(keys, key.opened, item));
  });
}

/**
 * Re-encrypts ciphertexts under the current version, without revealing a plaintext. @throws AppError as
 * {@link encryptItems}.
 */
export function rewrapItems(
  deps: CryptoDeps,
  name: string,
  items: readonly ItemResult<CiphertextItem>[],
  caller: Caller,
): Promise<ItemResult<RewrappedItem>[]> {
  return use(deps, 'rewrap', name, caller, async (key) => {
    const current = await currentOf(deps, key);
    const keys = await keysOf(deps, key, items);
    return each(items, (item) => {
      const { plaintext, version } = decrypted(keys, key.opened, item);
      const ciphertext = encryptTo(current.identity, current.key, plaintext, item.aad);
      plaintext.fill(0);
      return { ciphertext, version: current.identity.version, fromVersion: version };
    });
  });
}

/** Maximum retries for a key that changes during one request. */
const ROUNDS_MAX = 32;

/** A key during one request. */
interface KeyInUse {
  readonly opened: OpenedKey;
  /** The encryption keys that this request has unwrapped, by version. */
  readonly fresh: Map<number, KeyObject>;
}

/** The versions that an item has used. */
interface UsedVersions {
  readonly version: number;
  readonly fromVersion?: number;
}

/**
 * Runs `work` on the key, and again if the key changed before the use was on record. Only versions whose use
 * is on record stay open: the leases of a key of a customer list these.
 */
async function use<T extends UsedVersions>(
  deps: CryptoDeps,
  operation: CryptoOperation,
  name: string,
  caller: Caller,
  work: (key: KeyInUse) => Promise<ItemResult<T>[]>,
): Promise<ItemResult<T>[]> {
  for (let round = 0; round < ROUNDS_MAX; round++) {
    try {
      const key = { opened: await deps.opened.open(deps, name), fresh: new Map<number, KeyObject>() };
      const results = await work(key);
      await recordUses(deps, operation, key.opened, results, caller);
      keepUsed(key, results);
      recordFailures(deps, operation, key.opened, results, caller);
      return results;
    } catch (error) {
      if (!hasCode(error, 'precondition_failed')) throw error;
    }
  }
  throw new AppError('overloaded');
}

async function recordUses(
  { uses, metrics }: CryptoDeps,
  operation: CryptoOperation,
  { record }: OpenedKey,
  results: readonly ItemResult<UsedVersions>[],
  caller: Caller,
): Promise<void> {
  const done = doneOf(results);
  const { id, name } = record;
  const condition = { jti: caller.jti, key: stampOf(record) };
  const action = CRYPTO_ACTIONS[operation];
  const kinds = Map.groupBy(done, ({ version, fromVersion }) => `${version} ${fromVersion}`);
  for (const [first, ...more] of kinds.values()) {
    if (first === undefined) continue;
    const { version, fromVersion } = first;
    const kind = { action, caller, key: name, keyId: id, version, ...defined({ fromVersion }) };
    const written = uses.record(kind, 1 + more.length, condition);
    if (written !== undefined) await written;
  }
  metrics.cryptoItems.inc({ operation, outcome: 'done' }, done.length);
}

function keepUsed({ opened, fresh }: KeyInUse, results: readonly ItemResult<UsedVersions>[]): void {
  const used = new Set(
    doneOf(results).flatMap(({ version, fromVersion = version }) => [version, fromVersion]),
  );
  for (const [version, key] of fresh) if (used.has(version)) opened.encryptionKeys.set(version, key);
}

function doneOf<T>(results: readonly ItemResult<T>[]): T[] {
  return results.flatMap((result) => (result instanceof AppError ? [] : [result]));
}

function recordFailures(
  { clock, metrics, failures }: CryptoDeps,
  operation: CryptoOperation,
  { record: { id, name } }: OpenedKey,
  results: readonly ItemResult<unknown>[],
  caller: Caller,
): void {
  const failed = results.filter((result) => result instanceof AppError);
  if (failed.length === 0) return;
  metrics.cryptoItems.inc({ operation, outcome: 'failed' }, failed.length);
  // The failure of a single item is recorded as the refusal of its request.
  if (results.length === 1) return;
  for (const [code, { length: count }] of Map.groupBy(failed, (error) => error.code)) {
    const more = { outcome: 'failed', key: name, code, detail: { key_id: id, count } } as const;
    failures.named(draftNow({ clock }, caller, CRYPTO_ACTIONS[operation], more), count);
  }
}

async function currentOf(deps: CryptoDeps, key: KeyInUse) {
  const { id: keyId, version } = key.opened.record;
  return { key: await encryptionKeyOf(deps, key, version), identity: { keyId, version } };
}

async function encryptionKeyOf(
  deps: CryptoDeps,
  { opened, fresh }: KeyInUse,
  version: number,
): Promise<KeyObject> {
  const open = opened.encryptionKeys.get(version) ?? fresh.get(version);
  if (open !== undefined) return open;
  const key = await deps.opened.encryptionKey(deps, opened, version);
  fresh.set(version, key);
  return key;
}

/**
 * The encryption keys of the versions that items name, or why there is none. Versions that never existed are
 * absent.
 */
type KeysByVersion = ReadonlyMap<number, ItemResult<KeyObject>>;

async function keysOf(
  deps: CryptoDeps,
  inUse: KeyInUse,
  items: readonly ItemResult<CiphertextItem>[],
): Promise<KeysByVersion> {
  const keys = new Map<number, ItemResult<KeyObject>>();
  for (const item of items) {
    const version = item instanceof AppError ? undefined : versionNamed(inUse.opened, item);
    if (version === undefined || keys.has(version)) continue;
    keys.set(version, await encryptionKeyOf(deps, inUse, version).catch(ofItem));
  }
  return keys;
}

/** The fault of a version, which only affects the items that need it. */
function ofItem(error: unknown): AppError {
  if (hasCode(error, 'key_version_destroyed', 'key_damaged')) return error;
  throw error;
}

/** The version that a ciphertext of this key names; undefined for other bytes. */
function versionNamed({ record }: OpenedKey, { ciphertext }: CiphertextItem): number | undefined {
  const named = ciphertextKeyOf(ciphertext);
  if (named?.keyId !== record.id) return undefined;
  return named.version >= 1 && named.version <= record.version ? named.version : undefined;
}

/** @throws AppError `decryption_failed`, or the fault of the version. */
function decrypted(keys: KeysByVersion, opened: OpenedKey, item: CiphertextItem): DecryptedItem {
  const version = versionNamed(opened, item);
  const key = version === undefined ? undefined : keys.get(version);
  if (key instanceof AppError) throw key;
  if (version === undefined || key === undefined) throw new AppError('decryption_failed');
  try {
    return { plaintext: decryptFrom(key, item.ciphertext, item.aad), version };
  } catch (error) {
    if (error instanceof OpenError) throw new AppError('decryption_failed');
    throw error;
  }
}

/** Processes the items one by one: a refusal by `treat` becomes the result of its item. */
function each<Item, T>(items: readonly ItemResult<Item>[], treat: (item: Item) => T): ItemResult<T>[] {
  return items.map((item) => {
    if (item instanceof AppError) return item;
    try {
      return treat(item);
    } catch (error) {
      if (error instanceof AppError) return error;
      throw error;
    }
  });
}
