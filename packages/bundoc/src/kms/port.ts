import type { KeyObject } from 'node:crypto';
import type { Instant } from '@bundoc/shared/clock';
import type { DestroyReceipt } from '@bundoc/shared/contract/keys';

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

/** The cause of a `kms_unavailable`: BunKMS did answer, and does not give this service the key, now or after a pause. */
export class KeyRefused extends Error {
  override readonly name = 'KeyRefused';
}

/**
 * What Bundoc needs of a key service. Errors of every method: `kms_unavailable`, with `retryAfterS`, when it does not
 * answer, is sealed or refuses this service (then with the cause {@link KeyRefused}, unless it knows the token no more); `key_damaged`;
 * `project_disabled` while the key is held back, `project_destroyed` once it was destroyed; `key_mismatch` for an answer that contradicts itself.
 * All end by themselves within the deadline of the implementation.
 */
export interface KeyService {
  /**
   * @param version the current one when absent.
   * @throws AppError `KEY_NOT_FOUND`, also for a version that does not exist or was destroyed.
   */
  exportKey(name: string, version?: number): Promise<LeasedKey>;
  /** Makes a key. Resolves as well when it exists already: another node was first, and its key is as good. */
  createKey(name: string): Promise<void>;
  /** Makes a new version the current one, unless `version` is no longer that: then another node was first. */
  rotateKey(name: string, version: number): Promise<void>;
}

/** What the deletion of a project needs of a key service; errors as of {@link KeyService}. */
export interface KeyDestroyer {
  /** Resolves when this service may destroy the key as things are. Nothing is changed, and whether the key exists is not looked at. */
  requireDestroyable(name: string): Promise<void>;
  /**
   * Destroys a key in all its versions, for ever.
   *
   * @returns undefined when it was destroyed before.
   * @throws AppError `KEY_NOT_FOUND`.
   */
  destroyKey(name: string): Promise<DestroyReceipt | undefined>;
}
