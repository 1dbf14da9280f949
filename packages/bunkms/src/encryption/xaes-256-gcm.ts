import { createCipheriv, createSecretKey, type KeyObject } from 'node:crypto';
import { OpenError, open, SEAL_OVERHEAD_BYTES, seal } from '@bundoc/shared/crypto/aead';
import { fillRandom } from '@bundoc/shared/crypto/random';

/**
 * XAES-256-GCM (https://c2sp.org/XAES-256-GCM): AES-256-GCM with a random nonce of 192 bits, so that one key
 * can seal 2^80 messages instead of 2^32. The first half of the nonce derives a key for the message, by the
 * KDF of NIST SP 800-108r1 with AES-CMAC. The second half is the nonce of AES-256-GCM under that key. It is
 * not key-committing: {@link openExtended} with another key fails, but somebody who chooses both keys can
 * construct bytes that open under either.
 */

const BLOCK_BYTES = 16;
/** Bytes of the part of the nonce that derives the key. */
const KEY_NONCE_BYTES = 12;
/** What sealing adds to a plaintext: `nonce(24) | … | tag(16)`. */
export const EXTENDED_OVERHEAD_BYTES = KEY_NONCE_BYTES + SEAL_OVERHEAD_BYTES;

const ZERO_BLOCK = Buffer.alloc(BLOCK_BYTES);
/** The polynomial of CMAC for blocks of 128 bits (NIST SP 800-38B, section 5.3). */
const R128 = 0x87;
/** The label of the specification, ASCII `X`. */
const LABEL = 0x58;

/** @returns `nonce(24) | ciphertext | tag(16)`, a new buffer of `plaintext.length + 40` bytes. */
export function sealExtended(key: KeyObject, plaintext: Uint8Array, aad: Uint8Array): Buffer {
  const keyNonce = Buffer.allocUnsafe(KEY_NONCE_BYTES);
  fillRandom(keyNonce);
  return Buffer.concat([keyNonce, seal(messageKey(key, keyNonce), plaintext, aad)]);
}

/** Opens what {@link sealExtended} made. @throws OpenError, whatever is wrong. */
export function openExtended(key: KeyObject, sealed: Uint8Array, aad: Uint8Array): Buffer {
  if (sealed.length < EXTENDED_OVERHEAD_BYTES) throw new OpenError();
  const keyNonce = sealed.subarray(0, KEY_NONCE_BYTES);
  return open(messageKey(key, keyNonce), sealed.subarray(KEY_NONCE_BYTES), aad);
}

/** The key of one message. @param keyNonce the first 12 bytes of its nonce. */
export function messageKey(key: KeyObject, keyNonce: Uint8Array): KeyObject {
  const cipher = createCipheriv('aes-256-ecb', key, null).setAutoPadding(false);
  const mask = doubled(cipher.update(ZERO_BLOCK));
  const blocks = Buffer.alloc(2 * BLOCK_BYTES);
  for (const counter of [1, 2]) {
    const block = blocks.subarray((counter - 1) * BLOCK_BYTES, counter * BLOCK_BYTES);
    block[1] = counter;
    block[2] = LABEL;
    block.set(keyNonce, 4);
    for (let at = 0; at < BLOCK_BYTES; at++) block[at] = byteAt(block, at) ^ byteAt(mask, at);
  }
  const derived = cipher.update(blocks);
  try {
    return createSecretKey(derived);
  } finally {
    for (const secret of [derived, blocks, mask]) secret.fill(0);
  }
}

/** A block times `x` in GF(2^128): the first subkey of CMAC. Wipes its input. */
function doubled(block: Buffer): Buffer {
  const result = Buffer.alloc(BLOCK_BYTES);
  let carry = 0;
  for (let at = BLOCK_BYTES - 1; at >= 0; at--) {
    const byte = byteAt(block, at);
    result[at] = (byte << 1) | carry;
    carry = byte >>> 7;
  }
  // No branch on a secret bit.
  result[BLOCK_BYTES - 1] = byteAt(result, BLOCK_BYTES - 1) ^ (-carry & R128);
  block.fill(0);
  return result;
}

function byteAt(bytes: Uint8Array, at: number): number {
  return bytes[at] ?? 0;
}
