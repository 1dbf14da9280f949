import type { KeyObject } from 'node:crypto';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { OpenError } from '@bundoc/shared/crypto/aead';
import type { KeyUses } from '../audit/key-uses.ts';
import type { RefusalSink } from '../audit/recorders.ts';
import { type KeyDeps, stampOf } from '../keys/stored-key.ts';
import type { Caller } from '../records/caller.ts';
import { ciphertextKeyOf, decryptFrom, encryptTo } from './ciphertext.ts';
import type { OpenedKey, OpenedKeys } from './opened-keys.ts';

/**
 * Encryption under keys that stay here. Each request is decided by the key as the store has it when the
 * request is carried out, so what begins after a disabling or a destruction was answered is refused; and
 * nothing leaves before a durable record covers it.
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

/** What an item became, or why it failed. An item that was faulty from the start is passed on as it is. */
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
 * Encrypts under the current version. @throws AppError as {@link decryptItems}, and what is wrong with the
 * current version.
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
 * Opens ciphertexts of any version that there is. An item that does not open is `decryption_failed`, whatever
 * the reason; one that names a version which was destroyed, or is damaged, says so.
 *
 * @throws AppError `key_not_found`, `key_disabled`, `key_pending_deletion`, `key_destroyed`, `key_damaged`,
 * `audit_unavailable`; `unauthenticated` when the token was revoked meanwhile. No item was answered then.
 */
export function decryptItems(
  deps: CryptoDeps,
  name: string,
  items: readonly ItemResult<CiphertextItem>[],
  caller: Caller,
): Promise<ItemResult<DecryptedItem>[]> {
  return use(deps, 'decrypt', name, caller, async (key) => {
    const keys = await keysOf(deps, key, items);
    return each(items, (item) => decrypted(keys, key, item));
  });
}

/**
 * Brings ciphertexts to the current version; no plaintext leaves. @throws AppError as {@link encryptItems}.
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
      const { plaintext, version } = decrypted(keys, key, item);
      const ciphertext = encryptTo(current.identity, current.key, plaintext, item.aad);
      plaintext.fill(0);
      return { ciphertext, version: current.identity.version, fromVersion: version };
    });
  });
}

/** A key that is changed more often than this during one request has nothing steady to work with. */
const ROUNDS_MAX = 32;

/** Carries out `work` on the key, and again when the key was changed before that was on record. */
async function use<T extends { readonly version: number }>(
  deps: CryptoDeps,
  operation: CryptoOperation,
  name: string,
  caller: Caller,
  work: (key: OpenedKey) => Promise<ItemResult<T>[]>,
): Promise<ItemResult<T>[]> {
  for (let round = 0; round < ROUNDS_MAX; round++) {
    try {
      const key = await deps.opened.open(deps, name);
      const results = await work(key);
      await recordUses(deps, operation, key, results, caller);
      recordFailures(deps, operation, key, results, caller);
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
  results: readonly ItemResult<{ readonly version: number }>[],
  caller: Caller,
): Promise<void> {
  const done = results.flatMap((result) => (result instanceof AppError ? [] : [result]));
  const { id, name } = record;
  const condition = { jti: caller.jti, key: stampOf(record) };
  const action = CRYPTO_ACTIONS[operation];
  const counts = Map.groupBy(done, ({ version }) => version);
  for (const [version, { length }] of counts) {
    const written = uses.record({ action, caller, key: name, keyId: id, version }, length, condition);
    if (written !== undefined) await written;
  }
  metrics.cryptoItems.inc({ operation, outcome: 'done' }, done.length);
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
  // One that is alone is the refusal of its request, and recorded as that.
  if (results.length === 1) return;
  const time = new Date(clock.now()).toISOString();
  for (const [code, { length: count }] of Map.groupBy(failed, (error) => error.code))
    failures.named(
      {
        ...caller,
        time,
        severity: 'INFO',
        action: CRYPTO_ACTIONS[operation],
        outcome: 'failed',
        key: name,
        code,
        detail: { key_id: id, count },
      },
      count,
    );
}

async function currentOf(deps: CryptoDeps, opened: OpenedKey) {
  const { id: keyId, version } = opened.record;
  const key = opened.encryptionKeys.get(version) ?? (await deps.opened.encryptionKey(deps, opened, version));
  return { key, identity: { keyId, version } };
}

/**
 * The encryption keys of the versions that items name, or why there is none. Versions that the key never had
 * are absent.
 */
type KeysByVersion = ReadonlyMap<number, ItemResult<KeyObject>>;

async function keysOf(
  deps: CryptoDeps,
  opened: OpenedKey,
  items: readonly ItemResult<CiphertextItem>[],
): Promise<KeysByVersion> {
  const keys = new Map<number, ItemResult<KeyObject>>();
  for (const item of items) {
    const version = item instanceof AppError ? undefined : versionNamed(opened, item);
    if (version === undefined || keys.has(version)) continue;
    const kept = opened.encryptionKeys.get(version);
    keys.set(version, kept ?? (await deps.opened.encryptionKey(deps, opened, version).catch(ofItem)));
  }
  return keys;
}

/** What is wrong with one version concerns the items that need it, and nothing else. */
function ofItem(error: unknown): AppError {
  if (hasCode(error, 'key_version_destroyed', 'key_damaged')) return error;
  throw error;
}

/** The version that a ciphertext of this key names; undefined for bytes that are none. */
function versionNamed({ record }: OpenedKey, { ciphertext }: CiphertextItem): number | undefined {
  const named = ciphertextKeyOf(ciphertext);
  if (named?.keyId !== record.id) return undefined;
  return named.version >= 1 && named.version <= record.version ? named.version : undefined;
}

/** @throws AppError `decryption_failed`, or what is wrong with the version. */
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

/** Treats the items one by one: what `treat` refuses becomes the result of that item. */
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
