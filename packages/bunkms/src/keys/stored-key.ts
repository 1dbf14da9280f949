import assert from 'node:assert/strict';
import type { KeyObject } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { Logger } from '@bundoc/shared/runtime/logger';
import type { AuditLog } from '../audit/log.ts';
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

/** What the operations on keys stand on. */
export interface KeyDeps {
  readonly store: KeyStore & StorageStore & AuditStore;
  readonly vault: Vault;
  /** Brings the vault up to date with the KEKs. */
  readonly keks: Pick<Keks, 'refresh'>;
  /** Key of the audit chain: only what the chain says of a key is obeyed. */
  readonly chainKey: KeyObject;
  readonly audit: AuditLog;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * A key that is what its latest change made it, and those of the versions read with it that are genuine too.
 */
export interface AuthenticKey {
  readonly record: KeyRecord;
  readonly versions: readonly KeyVersionRecord[];
  /** Where in the audit chain that change is, and what it was. */
  readonly change: AuditReceipt;
  readonly changedBy: string;
}

/**
 * Reads a key and authenticates it.
 *
 * @throws AppError `key_not_found`, `key_damaged` for a row that was lost, edited, swapped or put back.
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

/** @returns undefined, and tells the log why, when the key must not be obeyed. */
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

/** What tells this state of a key from any other. */
export function stampOf({ id, revision, versionDigests }: KeyRecord): KeyVersionStamp {
  return { id, revision, versionDigests };
}

/** The version of that number, genuine. @throws AppError `key_damaged`. */
export function versionOf(
  { record, versions }: AuthenticKey,
  number: number,
  logger: Logger,
): KeyVersionRecord {
  const version = versions.find((one) => one.version === number);
  if (version !== undefined) return version;
  const facts = { keyName: record.name, keyId: record.id, version: number };
  logger.error({ ...facts, reason: 'its version is lost, changed or put back' }, 'a stored key is damaged');
  throw new AppError('key_damaged');
}
