import { KEY_BYTES } from './aead.ts';

/** Characters of a 32-byte key in base64, padding included. */
export const KEY_TEXT_BYTES = 44;

const ALPHABET = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/', 'latin1');
const PADDING = 0x3d;
const NONE = 0xff;
const VALUES = new Uint8Array(256).fill(NONE);
for (const [value, character] of ALPHABET.entries()) VALUES[character] = value;

/**
 * Writes a 32-byte key as base64 (RFC 4648, section 4) from bytes to bytes. Node's own codec has a string at one end, and
 * strings can be neither wiped nor kept out of heap snapshots.
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
 * Reads what {@link writeKeyText} writes, and nothing else: other lengths, characters, paddings and loose bits are refused.
 *
 * @returns the key, which the caller wipes; undefined when the text is none.
 */
export function readKeyText(text: Uint8Array): Buffer | undefined {
  if (text.length !== KEY_TEXT_BYTES || text[KEY_TEXT_BYTES - 1] !== PADDING) return undefined;
  // Not from the pool: the memory is this key's alone.
  const key = Buffer.alloc(KEY_BYTES);
  let isWrong = 0;
  for (let from = 0, to = 0; from < KEY_TEXT_BYTES; from += 4, to += 3) {
    const isLast = from === KEY_TEXT_BYTES - 4;
    const values = [0, 1, 2, 3].map((at) =>
      isLast && at === 3 ? 0 : byteAt(VALUES, byteAt(text, from + at)),
    );
    const [a = NONE, b = NONE, c = NONE, d = NONE] = values;
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

function byteAt(bytes: Uint8Array, at: number): number {
  return bytes[at] ?? 0;
}
