import type { KeyObject } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { takeKey } from '@bundoc/shared/crypto/aead';
import { readKeyHex, readKeyText } from '@bundoc/shared/crypto/key-text';
import { stampOf } from '@bundoc/shared/files/file-stamp';
import { ConfigError } from '@bundoc/shared/runtime/config';

/** The most keys a ring may hold; a ring this long means that rotations were never finished. */
const KEKS_MAX = 8;

/**
 * Where the key encryption keys come from. A port, so that an HSM or a cloud KMS can stand behind it.
 */
export interface KekProvider {
  /** Changes when the ring may have changed; cheap, and never throws. */
  stamp(): string;
  /**
   * The ring, one to {@link KEKS_MAX} different keys. Its order says which key an installation is made with,
   * the first, and nothing else.
   *
   * @throws ConfigError when there is no usable ring. The message names the source and the line, never a
   * content.
   */
  load(): Promise<readonly KeyObject[]>;
}

/** Where the ring is, as the configuration says. */
export type KekSource =
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'inline'; readonly text: string };

/** `warn` is called when others than the owner may read the file of the ring. */
export function kekProviderOf(source: KekSource, warn: (message: string) => void): KekProvider {
  return source.kind === 'file' ? fileKekProvider(source.path, warn) : inlineKekProvider(source.text);
}

/** Reads the ring from a file. `warn` is called when others than the owner may read that file. */
export function fileKekProvider(path: string, warn: (message: string) => void): KekProvider {
  return {
    stamp: () => stampOf(path),
    load: async () => {
      let bytes: Buffer;
      try {
        if ((statSync(path).mode & 0o077) !== 0)
          warn('BUNKMS_KEK_FILE: the file is open to its group or to others; make it mode 0600');
        bytes = readFileSync(path);
      } catch (error) {
        throw new ConfigError([
          `BUNKMS_KEK_FILE: the file cannot be read (${(error as NodeJS.ErrnoException).code})`,
        ]);
      }
      return takeKekRing('BUNKMS_KEK_FILE', bytes);
    },
  };
}

/**
 * Takes the ring from the text of the variable `BUNKMS_KEK`, which stays what it is for the life of the
 * process.
 */
export function inlineKekProvider(text: string): KekProvider {
  return { stamp: () => '', load: async () => parseKekRing('BUNKMS_KEK', text) };
}

/** {@link takeKekRing} of a text. A string cannot be wiped: a file is the better place for a KEK. */
export function parseKekRing(source: string, text: string): readonly KeyObject[] {
  return takeKekRing(source, Buffer.from(text));
}

/**
 * Reads a ring and wipes the bytes: one key a line, 32 bytes in base64 or as 64 hex digits. Empty lines
 * and lines that begin with `#` are skipped.
 *
 * @throws ConfigError naming `source` and every faulty line by number.
 */
function takeKekRing(source: string, bytes: Buffer): readonly KeyObject[] {
  const faults: string[] = [];
  const keks: KeyObject[] = [];
  try {
    for (const [index, word] of wordsOf(bytes).entries()) {
      if (word.length === 0 || word[0] === HASH) continue;
      const key = readKeyHex(word) ?? readKeyText(word);
      if (key === undefined) {
        faults.push(`${source}: line ${index + 1} is neither 32 bytes in base64 nor 64 hex digits`);
        continue;
      }
      const kek = takeKey(key);
      if (keks.some((other) => other.equals(kek))) faults.push(`${source}: line ${index + 1} repeats a key`);
      keks.push(kek);
    }
  } finally {
    bytes.fill(0);
  }
  if (keks.length > KEKS_MAX) faults.push(`${source}: holds more than ${KEKS_MAX} keys`);
  if (keks.length === 0 && faults.length === 0) faults.push(`${source}: holds no key`);
  if (faults.length > 0) throw new ConfigError(faults);
  return keks;
}

const BYTE_ORDER_MARK = Buffer.of(0xef, 0xbb, 0xbf);
const LINE_FEED = 0x0a;
const SPACE = 0x20;
const HASH = 0x23;

/** The lines, without the white space around them; parts of `bytes`, not copies. */
function wordsOf(bytes: Buffer): Buffer[] {
  const words: Buffer[] = [];
  let start = bytes.indexOf(BYTE_ORDER_MARK) === 0 ? BYTE_ORDER_MARK.length : 0;
  while (start <= bytes.length) {
    const found = bytes.indexOf(LINE_FEED, start);
    const next = found === -1 ? bytes.length : found;
    let end = next;
    while (start < end && (bytes[start] ?? 0) <= SPACE) start++;
    while (end > start && (bytes[end - 1] ?? 0) <= SPACE) end--;
    words.push(bytes.subarray(start, end));
    start = next + 1;
  }
  return words;
}
