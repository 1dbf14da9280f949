import type { KeyObject } from 'node:crypto';
import { deriveKey } from '@bundoc/shared/crypto/aead';
import { EXTENDED_OVERHEAD_BYTES, openExtended, sealExtended } from './xaes-256-gcm.ts';

/** First byte of every ciphertext (`docs/formats/ciphertext.md`). */
const FORMAT = 1;
const KEY_ID_BYTES = 16;
const VERSION_BYTES = 4;
const HEADER_BYTES = 1 + KEY_ID_BYTES + VERSION_BYTES;

/** What encryption adds to a plaintext: `format(1) | keyId(16) | version(4) | nonce(24) | … | tag(16)`. */
export const CIPHERTEXT_OVERHEAD_BYTES = HEADER_BYTES + EXTENDED_OVERHEAD_BYTES;

/** The key version of a ciphertext. */
export interface CiphertextKey {
  /** The key's id, a UUID. */
  readonly keyId: string;
  readonly version: number;
}

/**
 * The subkey that encrypts plaintexts. The DEK itself is never used, because it seals documents elsewhere.
 */
export function encryptionKeyOf(dek: KeyObject): KeyObject {
  return deriveKey(dek, 'bunkms/encrypt/v1');
}

/**
 * Encrypts with {@link encryptionKeyOf} the DEK of that version. The header and the caller's `aad` are
 * authenticated, so a ciphertext opens only with its own key, version and AAD.
 */
export function encryptTo(
  identity: CiphertextKey,
  key: KeyObject,
  plaintext: Uint8Array,
  aad: Uint8Array,
): Buffer {
  const header = headerOf(identity);
  return Buffer.concat([header, sealExtended(key, plaintext, Buffer.concat([header, aad]))]);
}

/**
 * The key and version that a ciphertext names; undefined for other bytes. Authenticated only by decryption.
 */
export function ciphertextKeyOf(ciphertext: Buffer): CiphertextKey | undefined {
  if (ciphertext.length < CIPHERTEXT_OVERHEAD_BYTES || ciphertext[0] !== FORMAT) return undefined;
  const id = ciphertext.toString('hex', 1, 1 + KEY_ID_BYTES);
  const keyId = id.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
  return { keyId, version: ciphertext.readUInt32BE(1 + KEY_ID_BYTES) };
}

/** Opens what {@link encryptTo} made. @throws OpenError, whatever is wrong. */
export function decryptFrom(key: KeyObject, ciphertext: Buffer, aad: Uint8Array): Buffer {
  const header = ciphertext.subarray(0, HEADER_BYTES);
  return openExtended(key, ciphertext.subarray(HEADER_BYTES), Buffer.concat([header, aad]));
}

function headerOf({ keyId, version }: CiphertextKey): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header[0] = FORMAT;
  header.write(keyId.replaceAll('-', ''), 1, 'hex');
  header.writeUInt32BE(version, 1 + KEY_ID_BYTES);
  return header;
}
