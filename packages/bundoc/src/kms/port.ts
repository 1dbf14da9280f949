import type { KeyObject } from 'node:crypto';
import type { AuditReceipt, DestroyReceipt } from '@bundoc/shared/contract/keys';
import type { DeletionIntent, StorageInfo, UnfinishedDeletion } from '@bundoc/shared/contract/storages';
import type { Instant } from '@bundoc/shared/runtime/clock';

/** A leased data encryption key. The raw bytes were wiped on arrival; only the KeyObject is left. */
export interface LeasedKey {
  readonly keyId: string;
  readonly version: number;
  /** Key check value; equal values mean the same key. */
  readonly kcv: string;
  /**
   * The DEK wrapped by the KEK, base64. It is useless without the KEK, and stored for the rebuild of a lost
   * key store.
   */
  readonly wrapped: string;
  readonly dek: KeyObject;
  /** The moment before the request for the key. */
  readonly requestedAt: Instant;
  /** Its lifetime, counted from `requestedAt`. */
  readonly ttlMs: number;
}

/**
 * The cause of a `kms_unavailable` when BunKMS answers, and refuses the key to this service now and later.
 */
export class KeyRefused extends Error {
  override readonly name = 'KeyRefused';
}

/** A storage in its current generation at the key service. */
export interface ActingStorage {
  readonly storage: string;
  readonly generation: string;
}

/** Why a key is exported without a storage, as its audit record says. */
export interface ExportReason {
  readonly purpose?: 'drill';
}

/**
 * The part of a key service that Bundoc needs for one storage.
 *
 * Errors of every method:
 * - `kms_unavailable`, with `retryAfterS`, when the key service does not answer, is sealed or refuses this
 *   service; a refusal has the cause {@link KeyRefused}, unless the service's token is unknown;
 * - `key_damaged`;
 * - `project_disabled` while the key is disabled, `project_destroyed` once it was destroyed;
 * - `key_mismatch` for an inconsistent answer.
 *
 * Errors of methods for the key's holder:
 * - `project_elsewhere`, with `storage`, when another storage holds the key; `key_unheld` when none does;
 * - `project_deleting` once its deletion is intended;
 * - `storage_superseded` when another copy of this storage is in use.
 *
 * Every call ends within the deadline of the implementation.
 */
export interface KeyService {
  /**
   * Exports a key to its holder.
   *
   * @param version the current one when absent.
   * @throws AppError `key_not_found`, also for a version that does not exist; `key_version_destroyed`.
   */
  exportKey(name: string, version?: number): Promise<LeasedKey>;
  /**
   * Creates a key that this storage holds.
   *
   * @returns false when it already exists, also after a lost answer; the export tells who holds it.
   */
  createKey(name: string): Promise<boolean>;
  /** Makes this storage the holder of an unheld key. Resolves as well when it already is the holder. */
  claimKey(name: string): Promise<void>;
  /**
   * Makes a new version the current one, unless `version` is no longer current because another node was
   * first.
   */
  rotateKey(name: string, version: number): Promise<void>;
}

/**
 * The part of a key service that deletions need; errors as of {@link KeyService}. Every step may be repeated.
 */
export interface KeyShredder {
  /**
   * Records that the key will be destroyed; from then on it is not released. The receipt names that record.
   * It is sent once: of two attempts, the first might be handled after the deletion was taken back.
   *
   * @param client who asks for the deletion: the root of the token. BunKMS bounds the rate of each client.
   * @throws AppError `key_not_found`; `rate_limited`, `overloaded` when the share of the client or of all
   *   clients is in use: this call has recorded nothing; `kms_unavailable`, with the cause {@link KeyRefused}
   *   when nothing was recorded, without it when that is unknown.
   */
  intendDeletion(name: string, client: string): Promise<DeletionIntent>;
  /**
   * Destroys all versions of a key for good. @throws AppError `precondition_failed` unless the key's latest
   * change is the one of `receipt`.
   */
  shredKey(name: string, receipt: AuditReceipt): Promise<DestroyReceipt>;
  /** Ends the deletion of a destroyed key: this storage has removed everything that the key sealed. */
  contentRemoved(name: string): Promise<void>;
  /** Deletions that this storage has begun and not ended. */
  unfinishedDeletions(): Promise<readonly UnfinishedDeletion[]>;
}

/**
 * The same calls for the storage that `acting` names. Without it, a created key has no holder, and an export
 * ignores who holds the key.
 */
export interface StorageCalls {
  exportKey(name: string, version?: number, acting?: ActingStorage | ExportReason): Promise<LeasedKey>;
  createKey(name: string, acting?: ActingStorage): Promise<boolean>;
  claimKey(name: string, acting: ActingStorage): Promise<void>;
  rotateKey(name: string, version: number): Promise<void>;
  intendDeletion(name: string, client: string, acting: ActingStorage): Promise<DeletionIntent>;
  shredKey(name: string, receipt: AuditReceipt, acting: ActingStorage): Promise<DestroyReceipt>;
  contentRemoved(name: string, acting: ActingStorage): Promise<void>;
  unfinishedDeletions(acting: ActingStorage): Promise<readonly UnfinishedDeletion[]>;
  /**
   * Projects whose keys a storage holds, in pages, without deleted ones and those whose deletion it intends.
   * Leaves out keys whose state BunKMS does not know, and keys that this service may not read.
   */
  heldProjects(storage: string): AsyncIterable<readonly string[]>;
  /** Offers the key to the storage `to`; replaces an earlier offer. May be repeated, like the next two. */
  offerKey(name: string, to: string, move: string, acting: ActingStorage): Promise<void>;
  /**
   * Withdraws the offer of this move, if it exists. @throws AppError `project_elsewhere` once it was
   * accepted.
   */
  withdrawOffer(name: string, move: string, acting: ActingStorage): Promise<void>;
  /**
   * Makes this storage the holder of a key that was offered to it in this move. @throws AppError
   * `key_not_offered`.
   */
  acceptKey(name: string, move: string, acting: ActingStorage): Promise<void>;
  /**
   * Advances a storage from one of the generations that it may have to a new one. May be repeated with the
   * same `to`.
   *
   * @throws AppError `storage_superseded` when it has another generation.
   */
  advanceStorage(id: string, from: readonly string[], to: string): Promise<StorageInfo>;
  /** BunKMS's record of a storage. @throws AppError `storage_not_found`. */
  storageInfo(id: string): Promise<StorageInfo>;
}
