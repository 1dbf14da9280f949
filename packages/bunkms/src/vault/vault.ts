import assert from 'node:assert/strict';
import type { KeyObject } from 'node:crypto';
import { aadOf, deriveBytes, KEY_BYTES, OpenError, open, seal } from '@bundoc/shared/crypto/aead';
import {
  formatOf,
  KEK_ID_BYTES,
  kekIdOf,
  OUTSIDE_DEK_BYTES,
  OUTSIDE_FORMAT,
  WRAPPED_FORMAT,
  WRAPPED_HEADER_BYTES,
  type WrappedFormat,
} from '../records/wrapped-key.ts';

const KEK_CHECK_BYTES = 16;

/** The identity that a wrapped DEK is bound to. It unwraps only with the same values. */
export interface DekIdentity {
  readonly keyId: string;
  readonly name: string;
  readonly version: number;
}

/** The service's own secrets: those that are wrapped in its store, and the keys inside backups. */
export type SecretName = 'audit-chain-key' | 'token-signing-seed' | 'backup-key';

/**
 * Holds the KEK ring. It wraps with the current KEK and unwraps with any. No method returns a KEK, and
 * inspection of the object shows none: the keys are private members of type KeyObject. `keks.ts` selects the
 * current KEK; a new vault uses the first, for a new installation.
 *
 * Each creation, rotation, rewrap and backup wraps, even one that loses a race. Nothing counts the
 * wraps under one KEK. At ten a second, the 2^32 seals that random GCM nonces allow (NIST SP 800-38D, section
 * 8.3) last for 13 years.
 */
export class Vault {
  #keks: ReadonlyMap<string, KeyObject>;
  #currentKekId: string;

  /** @param keks the ring, at least one. */
  constructor(keks: readonly KeyObject[]) {
    this.#keks = ringOf(keks);
    const [first] = this.kekIds;
    assert(first !== undefined, 'the KEK ring is empty');
    this.#currentKekId = first;
  }

  /** Id of the current KEK, in hex. */
  get currentKekId(): string {
    return this.#currentKekId;
  }

  /** Ids of the KEKs in the ring, in order. */
  get kekIds(): readonly string[] {
    return [...this.#keks.keys()];
  }

  holds(kekId: string): boolean {
    return this.#keks.has(kekId);
  }

  /** Those of `kekIds` that another ring lacks. */
  missingIn(keks: readonly KeyObject[], kekIds: readonly string[]): string[] {
    const ring = ringOf(keks);
    return kekIds.filter((kekId) => !ring.has(kekId));
  }

  /** Makes this KEK of the ring the current one. */
  makeCurrent(kekId: string): void {
    assert(this.#keks.has(kekId), 'the ring lacks the KEK');
    this.#currentKekId = kekId;
  }

  /** Replaces the ring. The new one must contain the current KEK. */
  replaceRing(keks: readonly KeyObject[]): void {
    const ring = ringOf(keks);
    assert(ring.has(this.#currentKekId), 'the new ring lacks the current KEK');
    this.#keks = ring;
  }

  /**
   * Check value of a KEK of the ring, 16 bytes in hex; undefined when the ring lacks it. It reveals nothing
   * about the KEK.
   */
  checkValueOf(kekId: string): string | undefined {
    const kek = this.#keks.get(kekId);
    return kek && deriveBytes(kek, 'bunkms/kek-check/v1', KEK_CHECK_BYTES).toString('hex');
  }

  /**
   * Wraps a DEK with the current KEK. The caller wipes `dek`.
   *
   * @param format 2 for a DEK that an outside key protects as well, as `encodeOutsideDek` makes it.
   */
  wrapDek(dek: Uint8Array, identity: DekIdentity, format: WrappedFormat = WRAPPED_FORMAT): Buffer {
    return this.#wrap(dek, dekAad(identity, format), format);
  }

  /**
   * @returns what {@link wrapDek} has wrapped, in the format of `wrapped`. The caller wipes it.
   * @throws OpenError when it does not unwrap, for whatever reason.
   */
  unwrapDek(wrapped: Uint8Array, identity: DekIdentity): Buffer {
    return this.#unwrap(wrapped, dekAad(identity, formatOf(wrapped)));
  }

  /** Wraps one of the service's own secrets with the current KEK. The caller wipes `secret`. */
  wrapSecret(secret: Uint8Array, name: SecretName): Buffer {
    return this.#wrap(secret, secretAad(name));
  }

  /**
   * @returns the raw secret, which the caller wipes.
   * @throws OpenError when it does not unwrap, for whatever reason.
   */
  unwrapSecret(wrapped: Uint8Array, name: SecretName): Buffer {
    if (formatOf(wrapped) !== WRAPPED_FORMAT) throw new OpenError();
    return this.#unwrap(wrapped, secretAad(name));
  }

  #wrap(key: Uint8Array, aadFor: (kekId: string) => Buffer, format: WrappedFormat = WRAPPED_FORMAT): Buffer {
    const { min, max } = format === OUTSIDE_FORMAT ? OUTSIDE_DEK_BYTES : { min: KEY_BYTES, max: KEY_BYTES };
    assert(key.length >= min && key.length <= max, 'a wrapped key has the length of its format');
    const kek = this.#keks.get(this.currentKekId);
    assert(kek !== undefined);
    const header = Buffer.concat([Buffer.of(format), Buffer.from(this.currentKekId, 'hex')]);
    return Buffer.concat([header, seal(kek, key, aadFor(this.currentKekId))]);
  }

  #unwrap(wrapped: Uint8Array, aadFor: (kekId: string) => Buffer): Buffer {
    const kekId = kekIdOf(wrapped);
    const kek = kekId === undefined ? undefined : this.#keks.get(kekId);
    if (kekId === undefined || kek === undefined) throw new OpenError();
    return open(kek, wrapped.subarray(WRAPPED_HEADER_BYTES), aadFor(kekId));
  }
}

function ringOf(keks: readonly KeyObject[]): ReadonlyMap<string, KeyObject> {
  return new Map(
    keks.map((kek) => [deriveBytes(kek, 'bunkms/kek-id/v1', KEK_ID_BYTES).toString('hex'), kek] as const),
  );
}

function dekAad(
  { keyId, name, version }: DekIdentity,
  format: WrappedFormat = WRAPPED_FORMAT,
): (kekId: string) => Buffer {
  return (kekId) => aadOf(`bunkms/dek/v${format}`, String(format), kekId, keyId, name, String(version));
}

function secretAad(name: SecretName): (kekId: string) => Buffer {
  return (kekId) => aadOf('bunkms/secret/v1', String(WRAPPED_FORMAT), kekId, name);
}
