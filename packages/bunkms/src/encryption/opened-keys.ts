import { createSecretKey, type KeyObject } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { LRUCache } from 'lru-cache';
import { requireEnabled } from '../keys/key-state.ts';
import { openedMs } from '../keys/leases.ts';
import { openDek } from '../keys/open-dek.ts';
import { type KeyDeps, readStoredKey, versionOf } from '../keys/stored-key.ts';
import type { KeyRecord } from '../records/key-record.ts';
import { encryptionKeyOf } from './ciphertext.ts';

/** A usable key, as read from the store at one time. */
export interface OpenedKey {
  readonly record: KeyRecord;
  /** The place of its latest change in the audit chain. */
  readonly change: AuditReceipt;
  /** The encryption keys of those versions that a use on record has needed. */
  readonly encryptionKeys: LRUCache<number, KeyObject>;
}

const KEYS_MAX = 1_024;
const VERSIONS_MAX = 16;

/**
 * Caches keys, so that not every use reads and unwraps them. A cached key is never trusted alone: each use
 * reads the place of the key's latest change from the store. The cached key is valid only while that is the
 * record that authenticated it. So a change by any process takes effect at once.
 */
export class OpenedKeys {
  readonly #kept: LRUCache<string, OpenedKey>;
  readonly #leaseTtlMs: number;

  /** @param leaseTtlMs how long a released key may be kept, milliseconds. */
  constructor(clock: Clock, leaseTtlMs: number) {
    this.#leaseTtlMs = leaseTtlMs;
    this.#kept = new LRUCache({
      max: KEYS_MAX,
      // `open` gives the time of each.
      ttl: 1,
      ttlResolution: 0,
      // Never zero, which the library treats as no time.
      perf: { now: () => clock.monotonic() + 1 },
    });
  }

  /**
   * Opens an enabled key.
   *
   * @throws AppError `key_not_found`, `key_disabled`, `key_pending_deletion`, `key_destroyed`, `key_damaged`.
   */
  async open(deps: KeyDeps, name: string): Promise<OpenedKey> {
    const place = await deps.store.lastChange(name);
    const kept = this.#kept.get(name);
    if (kept !== undefined && place !== undefined && isSame(kept.change, place)) return kept;
    this.#kept.delete(name);
    const { record, change } = await readStoredKey(deps, name, 'current');
    requireEnabled(record);
    const opened = { record, change, encryptionKeys: new LRUCache<number, KeyObject>({ max: VERSIONS_MAX }) };
    this.#kept.set(name, opened, { ttl: openedMs(this.#leaseTtlMs, record) });
    return opened;
  }

  /**
   * The encryption key of a version of the key, without keeping it: that waits for the record of its use.
   *
   * @throws AppError `key_version_destroyed`, `key_damaged`; `precondition_failed` when the key has changed
   *   since it was opened; `outside_key_denied`, `outside_key_unavailable`, `outside_key_changed`.
   */
  async encryptionKey(deps: KeyDeps, opened: OpenedKey, number: number): Promise<KeyObject> {
    const { name } = opened.record;
    const key = await readStoredKey(deps, name, number);
    if (!isSame(key.change, opened.change)) throw new AppError('precondition_failed');
    const version = versionOf(key, number, deps.logger);
    if (version.state === 'destroyed') throw new AppError('key_version_destroyed');
    const dek = await openDek(deps, key.record, version);
    try {
      return encryptionKeyOf(createSecretKey(dek));
    } finally {
      dek.fill(0);
    }
  }

  /** Removes expired entries. Call it every few seconds. */
  sweep(): void {
    this.#kept.purgeStale();
  }
}

function isSame(one: AuditReceipt, other: AuditReceipt): boolean {
  return one.seq === other.seq && one.hash === other.hash;
}
