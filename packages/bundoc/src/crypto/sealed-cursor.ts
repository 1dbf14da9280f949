import { randomBytes } from 'node:crypto';
import { aadOf, OpenError, open, seal } from '@bundoc/shared/crypto/aead';
import type { ProjectCipher } from './project-cipher.ts';

/** Of the key of a cursor and of its AAD. */
const LABEL = 'bundoc/cursor/v1';
const VERSION_BYTES = 4;
const SALT_BYTES = 16;

/** Seals and opens the cursors of one project. */
export interface Cursors {
  seal(context: readonly string[], plaintext: Buffer): string;
  open(context: readonly string[], cursor: string): Buffer | undefined;
}

export function cursorsOf(project: string, cipher: ProjectCipher): Cursors {
  return {
    seal: (context, plaintext) => sealCursor(cipher, [project, ...context], plaintext),
    open: (context, cursor) => openCursor(cipher, [project, ...context], cursor),
  };
}

/**
 * Seals the position where a client's next page starts. The client can neither read nor forge it: it is
 * sealed under a separate key and bound to its context. Base64url of `key version 4 | salt 16 | nonce 12 |
 * ciphertext | tag 16`.
 *
 * @param context what the cursor belongs to; the cursor opens in no other context. No NUL.
 */
function sealCursor(cipher: ProjectCipher, context: readonly string[], plaintext: Buffer): string {
  const head = Buffer.alloc(VERSION_BYTES);
  head.writeUInt32BE(cipher.version);
  const salt = randomBytes(SALT_BYTES);
  const key = cipher.subkey(cipher.version, LABEL, salt);
  if (key === undefined) throw new Error('the current key version has no key');
  return Buffer.concat([head, salt, seal(key, plaintext, cursorAad(context))]).toString('base64url');
}

/**
 * The plaintext; undefined for anything that {@link sealCursor} did not make, or made for another context.
 */
function openCursor(cipher: ProjectCipher, context: readonly string[], cursor: string): Buffer | undefined {
  const bytes = Buffer.from(cursor, 'base64url');
  if (bytes.length < VERSION_BYTES + SALT_BYTES || bytes.toString('base64url') !== cursor) return undefined;
  const salt = bytes.subarray(VERSION_BYTES, VERSION_BYTES + SALT_BYTES);
  const key = cipher.subkey(bytes.readUInt32BE(0), LABEL, salt);
  if (key === undefined) return undefined;
  try {
    return open(key, bytes.subarray(VERSION_BYTES + SALT_BYTES), cursorAad(context));
  } catch (error) {
    if (error instanceof OpenError) return undefined;
    throw error;
  }
}

function cursorAad(context: readonly string[]): Buffer {
  return aadOf(LABEL, ...context);
}
