import { KEY_BYTES, SEAL_OVERHEAD_BYTES } from '@bundoc/shared/crypto/aead';

/** The first byte of a wrapped key (`docs/formats/wrapped-key.md`). */
export const WRAPPED_FORMAT = 1;
/** The first byte of a DEK that an outside key protects as well. */
export const OUTSIDE_FORMAT = 2;
export type WrappedFormat = typeof WRAPPED_FORMAT | typeof OUTSIDE_FORMAT;

export const KEK_ID_BYTES = 8;
/** Bytes before the sealed key. */
export const WRAPPED_HEADER_BYTES = 1 + KEK_ID_BYTES;
const OVERHEAD_BYTES = WRAPPED_HEADER_BYTES + SEAL_OVERHEAD_BYTES;

/** Length of a wrapped 32-byte key: `format(1) | kekId(8) | nonce(12) | ciphertext(32) | tag(16)`. */
export const WRAPPED_KEY_BYTES = OVERHEAD_BYTES + KEY_BYTES;

/** Lengths of what format 2 seals: a name of 1 to 63 bytes, a wrapped share of 1 to 384, the sealed DEK. */
export const OUTSIDE_DEK_BYTES = { min: 2 + 3 + 60, max: 64 + 386 + 60 } as const;

/** The format of a wrapped key; undefined when the bytes have the form of none. */
export function formatOf(wrapped: Uint8Array): WrappedFormat | undefined {
  const sealed = wrapped.length - OVERHEAD_BYTES;
  if (wrapped[0] === WRAPPED_FORMAT) return sealed === KEY_BYTES ? WRAPPED_FORMAT : undefined;
  if (wrapped[0] !== OUTSIDE_FORMAT) return undefined;
  return sealed >= OUTSIDE_DEK_BYTES.min && sealed <= OUTSIDE_DEK_BYTES.max ? OUTSIDE_FORMAT : undefined;
}

/**
 * Id, in hex, of the KEK that `wrapped` names in its header; undefined when the bytes do not have the form of
 * a wrapped key.
 */
export function kekIdOf(wrapped: Uint8Array): string | undefined {
  if (formatOf(wrapped) === undefined) return undefined;
  return Buffer.from(wrapped.subarray(1, WRAPPED_HEADER_BYTES)).toString('hex');
}
