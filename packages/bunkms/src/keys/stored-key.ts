import assert from 'node:assert/strict';
import type { KeyObject } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { Logger } from '@bundoc/shared/logs/logger';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { AuditLog } from '../audit/log.ts';
import type { OutsideKeyPort } from '../outside/port.ts';
import {
  isGenuineVersion,
  type KeyRecord,
  type KeyVersionRecord,
  keyFault,
  type StoredKey,
} from '../records/key-record.ts';
import type { AuditStore } from '../store/audit.ts';
import type { KeyStore, KeyVersionStamp, VersionChoice } from '../store/keys.ts';
import type { StorageStore } from '../store/storages.ts';
import type { Keks } from '../vault/keks.ts';
import type { Vault } from '../vault/vault.ts';

/** The dependencies of the operations on keys. */
export interface KeyDeps {
  readonly store: KeyStore & StorageStore & AuditStore;
  readonly vault: Vault;
  /** Refreshes the KEK state of the vault. */
  readonly keks: Pick<Keks, 'refresh'>;
  /** Key of the audit chain: a key is valid only as the chain describes it. */
  readonly chainKey: KeyObject;
  readonly audit: AuditLog;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The outside keys of `BUNKMS_OUTSIDE_KEYS_FILE`. */
  readonly outside: OutsideKeyPort;
}

/**
 * A key that matches its latest change in the chain, with the genuine ones of the versions that were read.
 */
export interface AuthenticKey {
  readonly record: KeyRecord;
  readonly versions: readonly KeyVersionRecord[];
  /** The place of that change in the audit chain, and its action. */
  readonly change: AuditReceipt;
  readonly changedBy: string;
}

/**
 * Reads a key and authenticates it.
 *
 * @throws AppError `key_not_found`, `key_damaged` for a row that was lost, edited, swapped or rolled back.
 */
export async function readStoredKey(
  deps: Pick<KeyDeps, 'store' | 'chainKey' | 'logger'>,
  name: string,
  versions: VersionChoice,
): Promise<AuthenticKey> {
  const stored = await deps.store.findKey(name, versions);
  if (stored === undefined) throw new AppError('key_not_found');
  const key = authenticate(deps, name, stored);
  if (key === undefined) throw new AppError('key_damaged');
  return key;
}

/** The refusal of a version that the key has never had. */
export function versionNotFound({ version }: KeyRecord): AppError {
  return new AppError('key_not_found', { detail: `the key has no such version: its latest is ${version}` });
}

/** @returns undefined, and logs why, when the key must not be used. */
export function authenticate(
  { chainKey, logger }: Pick<KeyDeps, 'chainKey' | 'logger'>,
  name: string,
  stored: StoredKey,
): AuthenticKey | undefined {
  const reason = keyFault(chainKey, name, stored);
  if (reason !== undefined) {
    logger.error({ keyName: name, reason }, 'a stored key is damaged');
    return undefined;
  }
  const { record, lastChange } = stored;
  assert(record !== undefined && lastChange !== undefined, 'a key without a fault has a record');
  const isGenuine = (version: KeyVersionRecord) =>
    version.keyId === record.id && version.version <= record.version && isGenuineVersion(record, version);
  const { seq, hash, action } = lastChange;
  return {
    record,
    versions: stored.versions.filter(isGenuine),
    change: { seq, hash },
    changedBy: action,
  };
}

/** Identifies this state of a key. */
export function stampOf({ id, revision, versionDigests }: KeyRecord): KeyVersionStamp {
  return { id, revision, versionDigests };
}

/** The genuine version with that number. @throws AppError `key_damaged`. */
export function versionOf(
  { record, versions }: AuthenticKey,
  number: number,
  logger: Logger,
): KeyVersionRecord {
  const version = versions.find((one) => one.version === number);
  if (version !== undefined) return version;
  const facts = { keyName: record.name, keyId: record.id, version: number };
  logger.error(
    { ...facts, reason: 'its version is lost, changed or rolled back' },
    'a stored key is damaged',
  );
  throw new AppError('key_damaged');
}
