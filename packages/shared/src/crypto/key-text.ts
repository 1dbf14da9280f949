import { KEY_BYTES } from './aead.ts';

/** Characters of a 32-byte key in base64, padding included. */
export const KEY_TEXT_BYTES = 44;

const ALPHABET = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/', 'latin1');
const PADDING = 0x3d;
const NONE = 0xff;
const VALUES = new Uint8Array(256).fill(NONE);
for (const [value, character] of ALPHABET.entries()) VALUES[character] = value;

/**
 * Writes a 32-byte key as base64 (RFC 4648, section 4) from bytes to bytes. Node's own codec needs a string,
 * and a string can be neither wiped nor kept out of heap snapshots.
 *
 * @param target has room for {@link KEY_TEXT_BYTES}.
 */
export function writeKeyText(key: Uint8Array, target: Uint8Array): void {
  for (let from = 0, to = 0; from < KEY_BYTES; from += 3, to += 4) {
    const left = KEY_BYTES - from;
    const bits = (byteAt(key, from) << 16) | (byteAt(key, from + 1) << 8) | byteAt(key, from + 2);
    target[to] = byteAt(ALPHABET, bits >>> 18);
    target[to + 1] = byteAt(ALPHABET, (bits >>> 12) & 63);
    target[to + 2] = byteAt(ALPHABET, (bits >>> 6) & 63);
    target[to + 3] = left > 2 ? byteAt(ALPHABET, bits & 63) : PADDING;
  }
}

/**
 * Reads the output of {@link writeKeyText}, and refuses everything else: other lengths, characters, paddings
 * and unused bits that are not zero.
 *
 * @returns the key, which the caller wipes; undefined when the text is not a key.
 */
export function readKeyText(text: Uint8Array): Buffer | undefined {
  if (text.length !== KEY_TEXT_BYTES || text[KEY_TEXT_BYTES - 1] !== PADDING) return undefined;
  // Not from the pool: no other buffer shares this memory.
  const key = Buffer.alloc(KEY_BYTES);
  let isWrong = 0;
  for (let from = 0, to = 0; from < KEY_TEXT_BYTES; from += 4, to += 3) {
    const isLast = from === KEY_TEXT_BYTES - 4;
    const a = byteAt(VALUES, byteAt(text, from));
    const b = byteAt(VALUES, byteAt(text, from + 1));
    const c = byteAt(VALUES, byteAt(text, from + 2));
    const d = isLast ? 0 : byteAt(VALUES, byteAt(text, from + 3));
    isWrong |= (a | b | c | d) & 0xc0;
    key[to] = (a << 2) | (b >>> 4);
    key[to + 1] = (b << 4) | (c >>> 2);
    if (isLast) isWrong |= c & 3;
    else key[to + 2] = (c << 6) | d;
  }
  if (isWrong === 0) return key;
  key.fill(0);
  return undefined;
}

/**
 * Reads a 32-byte key from 64 hex digits of either case. @returns the key, which the caller wipes; undefined
 * when the text is not a key.
 */
export function readKeyHex(text: Uint8Array): Buffer | undefined {
  if (text.length !== 2 * KEY_BYTES) return undefined;
  const key = Buffer.alloc(KEY_BYTES);
  let isWrong = 0;
  for (let at = 0; at < KEY_BYTES; at++) {
    const high = digitOf(byteAt(text, 2 * at));
    const low = digitOf(byteAt(text, 2 * at + 1));
    isWrong |= (high | low) & 0xf0;
    key[at] = (high << 4) | low;
  }
  if (isWrong === 0) return key;
  key.fill(0);
  return undefined;
}

function digitOf(character: number): number {
  if (character >= 0x30 && character <= 0x39) return character - 0x30;
  const lower = character | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : NONE;
}

function byteAt(bytes: Uint8Array, at: number): number {
  return bytes[at] ?? 0;
}
