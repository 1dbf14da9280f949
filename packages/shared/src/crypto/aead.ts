import assert from 'node:assert/strict';
import {
  createCipheriv,
  createDecipheriv,
  createSecretKey,
  type DecipherGCM,
  hkdfSync,
  type KeyObject,
} from 'node:crypto';
import { freeMemory } from '../process/free-memory.ts';
import { fillRandom } from './random.ts';

/** Bytes of an AES-256 key. */
export const KEY_BYTES = 32;
/** Bytes of the GCM nonce (NIST SP 800-38D: 96 bits is the size for which random nonces are analysed). */
export const NONCE_BYTES = 12;
/** Bytes of the GCM tag; shorter tags are never produced or accepted. */
export const TAG_BYTES = 16;
/** What sealing adds to a plaintext. */
export const SEAL_OVERHEAD_BYTES = NONCE_BYTES + TAG_BYTES;

/**
 * Bytes that do not open under a key and its AAD: changed, moved, truncated, or sealed under another key. All
 * have the same message on purpose: a caller must not learn which of these it was.
 */
export class OpenError extends Error {
  override readonly name = 'OpenError';
  constructor() {
    super('the sealed bytes do not open');
  }
}

/**
 * AAD from its parts, at least one: UTF-8, joined by a NUL byte. No part may contain a NUL, or a lone
 * surrogate, which UTF-8 would replace. So two different lists of parts never give the same AAD.
 */
export function aadOf(...parts: readonly string[]): Buffer {
  assert(parts.length > 0, 'an AAD has at least one part');
  for (const part of parts) {
    assert(!part.includes('\0'), 'an AAD part contains a NUL');
    assert(part.isWellFormed(), 'an AAD part is not well-formed Unicode');
  }
  return Buffer.from(parts.join('\0'), 'utf8');
}

/**
 * Seals `plaintext` under AES-256-GCM with a fresh random nonce.
 *
 * @returns `nonce(12) | ciphertext | tag(16)`, a new buffer of `plaintext.length + 28` bytes.
 * A key may seal at most 2^32 times with random nonces (NIST SP 800-38D, section 8.3); the caller counts.
 */
export function seal(key: KeyObject, plaintext: Uint8Array, aad: Uint8Array): Buffer {
  // Not from Node's buffer pool: sealed bytes live long, and would keep their pool neighbours in memory,
  // plaintext among them.
  const sealed = Buffer.allocUnsafeSlow(plaintext.length + SEAL_OVERHEAD_BYTES);
  sealInto(key, plaintext, aad, sealed);
  return sealed;
}

/** {@link seal} into `target`, of exactly `plaintext.length + 28` bytes. */
export function sealInto(key: KeyObject, plaintext: Uint8Array, aad: Uint8Array, target: Uint8Array): void {
  assert(target.length === plaintext.length + SEAL_OVERHEAD_BYTES, 'the target has the sealed length');
  const nonce = target.subarray(0, NONCE_BYTES);
  fillRandom(nonce);
  const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(aad);
  moveTo(target, NONCE_BYTES, cipher.update(plaintext));
  cipher.final();
  target.set(cipher.getAuthTag(), NONCE_BYTES + plaintext.length);
}

/** Copies the output of a cipher to its place, and frees it. Node's ciphers always allocate their output. */
export function moveTo(target: Uint8Array, at: number, bytes: Buffer): void {
  target.set(bytes, at);
  freeMemory(bytes);
}

/** Bytes that are sealed in one step, which takes well below a millisecond. */
const STEP_BYTES = 1_048_576;

/**
 * {@link sealInto} in steps, between which the caller can do other work. The caller must run it to its end.
 */
export function* sealInSteps(
  key: KeyObject,
  plaintext: Uint8Array,
  aad: Uint8Array,
  target: Uint8Array,
): Generator<void> {
  assert(target.length === plaintext.length + SEAL_OVERHEAD_BYTES, 'the target has the sealed length');
  const nonce = target.subarray(0, NONCE_BYTES);
  fillRandom(nonce);
  const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(aad);
  for (let at = 0; at < plaintext.length; at += STEP_BYTES) {
    moveTo(target, NONCE_BYTES + at, cipher.update(plaintext.subarray(at, at + STEP_BYTES)));
    yield;
  }
  cipher.final();
  target.set(cipher.getAuthTag(), NONCE_BYTES + plaintext.length);
}

/**
 * Opens what {@link seal} made. No byte of plaintext is returned unless the tag holds.
 *
 * @throws OpenError when the bytes are too short or do not authenticate.
 */
export function open(key: KeyObject, sealed: Uint8Array, aad: Uint8Array): Buffer {
  if (sealed.length < SEAL_OVERHEAD_BYTES) throw new OpenError();
  const tagStart = sealed.length - TAG_BYTES;
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, NONCE_BYTES), {
    authTagLength: TAG_BYTES,
  });
  decipher.setAAD(aad);
  decipher.setAuthTag(sealed.subarray(tagStart));
  return decrypted(decipher, sealed.subarray(NONCE_BYTES, tagStart));
}

/**
 * What a decipher, which has its AAD and tag, makes of a ciphertext.
 *
 * @throws OpenError when it does not authenticate; no plaintext is left in memory then.
 */
export function decrypted(decipher: DecipherGCM, ciphertext: Uint8Array): Buffer {
  const plaintext = decipher.update(ciphertext);
  try {
    decipher.final();
  } catch {
    plaintext.fill(0);
    freeMemory(plaintext);
    throw new OpenError();
  }
  return plaintext;
}

const NO_SALT = Buffer.alloc(0);

/**
 * HKDF-SHA256 (RFC 5869): derives one value per purpose and salt from one key. `info` names the purpose and
 * its version, so that no two purposes share a subkey.
 */
export function deriveBytes(key: KeyObject, info: string, bytes: number, salt: Buffer = NO_SALT): Buffer {
  return Buffer.from(hkdfSync('sha256', key, salt, info, bytes));
}

/** {@link deriveBytes} as a 256-bit key. Wipes the intermediate bytes. */
export function deriveKey(key: KeyObject, info: string, salt: Buffer = NO_SALT): KeyObject {
  const bytes = deriveBytes(key, info, KEY_BYTES, salt);
  try {
    return createSecretKey(bytes);
  } finally {
    bytes.fill(0);
  }
}

/**
 * Takes ownership of raw key bytes: converts them to a KeyObject and wipes the buffer, even when it throws.
 */
export function takeKey(bytes: Buffer): KeyObject {
  try {
    assert(bytes.length === KEY_BYTES, 'a key has 32 bytes');
    return createSecretKey(bytes);
  } finally {
    bytes.fill(0);
  }
}

/**
 * Key check value of a DEK, 16 bytes in hex: tells two keys apart and reveals nothing about either
 * (`HKDF-SHA256(DEK, info="bunkms/kcv/v1")`).
 */
export function keyCheckValue(dek: KeyObject): string {
  return deriveBytes(dek, 'bunkms/kcv/v1', 16).toString('hex');
}
