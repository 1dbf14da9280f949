import { KEY_BYTES, SEAL_OVERHEAD_BYTES } from '@bundoc/shared/crypto/aead';

/** First byte of every wrapped key (`docs/formats/wrapped-key.md`). */
export const WRAPPED_FORMAT = 1;
export const KEK_ID_BYTES = 8;
/** Bytes before the sealed key. */
export const WRAPPED_HEADER_BYTES = 1 + KEK_ID_BYTES;

/** Length of a wrapped 32-byte key: `format(1) | kekId(8) | nonce(12) | ciphertext(32) | tag(16)`. */
export const WRAPPED_KEY_BYTES = WRAPPED_HEADER_BYTES + KEY_BYTES + SEAL_OVERHEAD_BYTES;

/**
 * Id, in hex, of the KEK that `wrapped` names in its header; undefined when the bytes do not have the form of
 * a wrapped key.
 */
export function kekIdOf(wrapped: Uint8Array): string | undefined {
  if (wrapped.length !== WRAPPED_KEY_BYTES || wrapped[0] !== WRAPPED_FORMAT) return undefined;
  return Buffer.from(wrapped.subarray(1, WRAPPED_HEADER_BYTES)).toString('hex');
}
