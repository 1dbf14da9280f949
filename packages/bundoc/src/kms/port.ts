import type { KeyObject } from 'node:crypto';
import type { Instant } from '@bundoc/shared/clock';

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
 * What Bundoc needs of a key service. Errors of both methods: `kms_unavailable`, with `retryAfterS`, when it does not
 * answer, is sealed or refuses this service; `key_damaged`; `key_mismatch` for an answer that contradicts itself.
 * Both end by themselves within the deadline of the implementation.
 */
export interface KeyService {
  /** @throws AppError `KEY_NOT_FOUND`. */
  exportKey(name: string): Promise<LeasedKey>;
  /** Makes a key. Resolves as well when it exists already: another node was first, and its key is as good. */
  createKey(name: string): Promise<void>;
}
