import type { KeyObject } from 'node:crypto';
import type { AuditReceipt, DestroyReceipt } from '@bundoc/shared/contract/keys';
import type { DeletionIntent, StorageInfo, UnfinishedDeletion } from '@bundoc/shared/contract/storages';
import type { Instant } from '@bundoc/shared/runtime/clock';

/** A data encryption key on loan. The raw bytes were wiped on arrival; only the KeyObject is left. */
export interface LeasedKey {
  readonly keyId: string;
  readonly version: number;
  /** Key check value; equal values mean the same key. */
  readonly kcv: string;
  /** The DEK wrapped by the KEK, base64: useless without it, kept for the rebuild of a lost key store. */
  readonly wrapped: string;
  readonly dek: KeyObject;
  /** The moment before the key was asked for. */
  readonly requestedAt: Instant;
  /** How long it may be used, counted from `requestedAt`. */
  readonly ttlMs: number;
}

/**
 * The cause of a `kms_unavailable`: BunKMS did answer, and does not give this service the key, now or after a
 * pause.
 */
export class KeyRefused extends Error {
  override readonly name = 'KeyRefused';
}

/** A storage in the generation that it has at the key service. */
export interface ActingStorage {
  readonly storage: string;
  readonly generation: string;
}

/**
 * What Bundoc needs of a key service for one storage. Errors of every method: `kms_unavailable`, with
 * `retryAfterS`, when it does not answer, is sealed or refuses this service (then with the cause
 * {@link KeyRefused}, unless it knows the token no more); `key_damaged`; `project_disabled` while the key is
 * held back, `project_destroyed` once it was destroyed; `key_mismatch` for an answer that contradicts itself.
 *
 * Of what only the holder of a key may do: `project_elsewhere`, with `storage`, when another storage holds
 * the key; `key_unheld` when none does; `project_deleting` once its deletion is intended;
 * `storage_superseded` when another copy of this storage is in use. All end by themselves within the deadline
 * of the implementation.
 */
export interface KeyService {
  /**
   * Exports a key to its holder.
   *
   * @param version the current one when absent.
   * @throws AppError `key_not_found`, also for a version that does not exist or was destroyed.
   */
  exportKey(name: string, version?: number): Promise<LeasedKey>;
  /**
   * Makes a key that this storage holds.
   *
   * @returns false when it exists already: the export tells who holds it. Also after an answer that was lost.
   */
  createKey(name: string): Promise<boolean>;
  /**
   * Makes this storage the holder of a key that nobody holds. Resolves as well when it is the holder already.
   */
  claimKey(name: string): Promise<void>;
  /** Makes a new version the current one, unless `version` is no longer that: then another node was first. */
  rotateKey(name: string, version: number): Promise<void>;
}

/**
 * What the deletion of a project needs of a key service; errors as of {@link KeyService}. Every step may be
 * repeated.
 */
export interface KeyShredder {
  /**
   * Records that the key is to be shredded: it is released no more. The receipt names that record. Sent once:
   * of two tries the first might be handled after the deletion was taken back.
   *
   * @throws AppError `key_not_found`; `kms_unavailable` with the cause {@link KeyRefused} when nothing was
   * recorded, and without it when that is not known.
   */
  intendDeletion(name: string): Promise<DeletionIntent>;
  /**
   * Destroys a key in all its versions, for ever. @throws AppError `precondition_failed` unless the key's
   * latest change is the one of `receipt`.
   */
  shredKey(name: string, receipt: AuditReceipt): Promise<DestroyReceipt>;
  /** Ends the deletion of a key that was shredded: this storage has removed what was sealed under it. */
  contentRemoved(name: string): Promise<void>;
  /** Deletions that this storage has begun and not ended. */
  unfinishedDeletions(): Promise<readonly UnfinishedDeletion[]>;
}

/** What a move needs of a key service; errors as of {@link KeyService}. Every step may be repeated. */
export interface KeyHandover {
  /** Offers the key to the storage `to`; an earlier offer is replaced. */
  offerKey(name: string, to: string, move: string): Promise<void>;
  /**
   * Takes the offer of this move back, if it stands. @throws AppError `project_elsewhere` once it was
   * accepted.
   */
  withdrawOffer(name: string, move: string): Promise<void>;
  /**
   * Makes this storage the holder of a key that is offered to it in this move. @throws AppError
   * `key_not_offered`.
   */
  acceptKey(name: string, move: string): Promise<void>;
}

/**
 * The same for whichever storage `acting` names; without one, a key is made for no holder, and exported
 * anyone who holds it.
 */
export interface StorageCalls {
  exportKey(name: string, version?: number, acting?: ActingStorage): Promise<LeasedKey>;
  createKey(name: string, acting?: ActingStorage): Promise<boolean>;
  claimKey(name: string, acting: ActingStorage): Promise<void>;
  rotateKey(name: string, version: number): Promise<void>;
  intendDeletion(name: string, acting: ActingStorage): Promise<DeletionIntent>;
  shredKey(name: string, receipt: AuditReceipt, acting: ActingStorage): Promise<DestroyReceipt>;
  contentRemoved(name: string, acting: ActingStorage): Promise<void>;
  unfinishedDeletions(acting: ActingStorage): Promise<readonly UnfinishedDeletion[]>;
  offerKey(name: string, to: string, move: string, acting: ActingStorage): Promise<void>;
  withdrawOffer(name: string, move: string, acting: ActingStorage): Promise<void>;
  acceptKey(name: string, move: string, acting: ActingStorage): Promise<void>;
  /**
   * Brings a storage from one of the generations that it may have to a fresh one. May be repeated with the
   * same `to`.
   *
   * @throws AppError `storage_superseded` when it has another generation.
   */
  advanceStorage(id: string, from: readonly string[], to: string): Promise<StorageInfo>;
  /** What BunKMS knows of a storage. @throws AppError `storage_not_found`. */
  storageInfo(id: string): Promise<StorageInfo>;
}
