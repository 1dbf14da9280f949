import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { AuditDraft } from '../records/chain.ts';
import type { KeyRecord, KeyVersionRecord, NamedKey, StoredKey } from '../records/key-record.ts';
import type { FilteredPage, Page, PageQuery } from './page.ts';
import type { StorageStamp } from './storages.ts';

/** Which versions to read with a key. */
export type VersionChoice = number | 'current' | 'all';

/** The new state of a key, its new or changed versions, and the record of the change. */
export interface KeyChange {
  readonly record: KeyRecord;
  readonly versions: readonly KeyVersionRecord[];
  readonly audit: AuditDraft;
  /** Storages that must be as they were read. */
  readonly storages?: readonly StorageStamp[] | undefined;
  /** The `jti` of the token of the request, which must be active at that moment (`findActiveTokenFamily`). */
  readonly jti?: string | undefined;
}

/** Identifies one state of a key. States that differ only in the wrapping differ here, too. */
export type KeyVersionStamp = Pick<KeyRecord, 'id' | 'revision' | 'versionDigests'>;

/**
 * A change of the key that is stored as `previous`. Its revision is the next one, or the same when the key is
 * only rewrapped.
 */
export interface KeyUpdate extends KeyChange {
  readonly previous: KeyVersionStamp;
  /** After this record, the key must not have been released. */
  readonly unreleasedSince?: number | undefined;
}

/**
 * Keys and their versions. The store does not validate keys. Errors of every method: see `KmsStore`.
 */
export interface KeyStore {
  /**
   * Stores a new key with its record.
   *
   * @param idempotentSince with an idempotency key: a key that the same idempotency key made at this time
   *   or later counts.
   * @returns undefined when the key was stored. Otherwise nothing was written, and it is the key that the
   *   same idempotency key made, with its first version. It is `outdated` when the new key is wrapped
   *   with another KEK than the current one, or a storage has changed since it was read.
   * @throws AppError `key_exists` when the name is or was in use; `unauthenticated` when its token is not
   *   active; `storage_unavailable` before `unlock`. Nothing is written then.
   */
  insertKey(key: KeyChange, idempotentSince?: string): Promise<StoredKey | 'outdated' | undefined>;

  /**
   * The key stored under a name, read in one snapshot; undefined if there never was one. Not authenticated.
   */
  findKey(name: string, versions: VersionChoice): Promise<StoredKey | undefined>;

  /**
   * The place of the latest change of a key in the audit chain (`StoredKey.lastChange`); undefined when there
   * is none. While it stays the same, so does the key. This is the cheapest check of a key.
   */
  lastChange(name: string): Promise<AuditReceipt | undefined>;

  /**
   * Replaces a key's previous state, and checks in the same transaction that this is the stored one. Of
   * several writers that change the same state one succeeds.
   *
   * @returns the place of the audit record. Undefined, with nothing written, when the key is absent or in
   *   another state, or was exported since. Also when a new version is not wrapped with the current KEK, or a
   *   storage has changed since it was read.
   * @throws AppError `unauthenticated` when its token is not active; `storage_unavailable` before `unlock`.
   *   Nothing is written then.
   */
  updateKey(change: KeyUpdate): Promise<AuditReceipt | undefined>;

  /**
   * {@link updateKey} for many keys in one transaction; each succeeds or fails separately. @throws as
   * {@link updateKey}, for all of them.
   */
  updateKeys(changes: readonly KeyUpdate[]): Promise<(AuditReceipt | undefined)[]>;

  /**
   * Replaces whatever is stored under the key's name and under its id: for a lost or damaged key, which
   * {@link updateKey} cannot change.
   *
   * @param lastChange `seq` of the latest change of that name, as the caller saw it; undefined for a name
   *   that has none.
   * @returns the place of the audit record; undefined, with nothing written, when there was another change
   *   since.
   * @throws AppError `storage_unavailable` before `unlock`.
   */
  replaceKey(change: KeyChange, lastChange: number | undefined): Promise<AuditReceipt | undefined>;

  /** Keys with their current version whose name one of `globs` matches, in the order of their names. */
  listKeys(globs: readonly string[], page: PageQuery<string>): Promise<FilteredPage<NamedKey, string>>;

  /** Keys with their current version whose `dueAt` is not after `until`, in the order of their names. */
  listDueKeys(until: string, page: PageQuery<string>): Promise<Page<NamedKey>>;

  /**
   * Overwrites bytes that earlier changes removed from the tables. Afterwards the storage contains no
   * destroyed key.
   *
   * @returns false when another process was in the way: try again later.
   */
  scrub(): Promise<boolean>;
}
