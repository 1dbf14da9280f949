import type { KeyObject } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { takeKey } from '@bundoc/shared/crypto/aead';
import { KEY_TEXT_BYTES, readKeyHex, readKeyText, writeKeyText } from '@bundoc/shared/crypto/key-text';
import { stampOf } from '@bundoc/shared/files/file-stamp';
import { ConfigError, unreadable } from '@bundoc/shared/process/config';
import {
  askSlots,
  type FindOutsideKey,
  openThroughSlots,
  type SlotState,
  sealedRingOf,
} from './open-ring.ts';
import { isSealedRing, KEKS_MAX } from './sealed-ring.ts';

/** The source of the key encryption keys. A port, so that an HSM or a cloud KMS could implement it. */
export interface KekProvider {
  /** A value that changes when the ring may have changed. Cheap; never throws. */
  stamp(): string;
  /**
   * The ring, one to {@link KEKS_MAX} different keys. A new installation uses the first key. Otherwise the
   * order has no meaning.
   *
   * @throws ConfigError when there is no usable ring. The message names the source and the line, but never
   *   quotes content. RingSealed when the ring is sealed and no outside key opens it now.
   */
  load(): Promise<readonly KeyObject[]>;
  /**
   * What the slots of a sealed ring answer now; none for a plain one. @throws when the file cannot be read.
   */
  askSlots(): Promise<readonly SlotState[]>;
}

/** The configured source of the ring. */
export type KekSource =
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'inline'; readonly text: string };

/** What the ring in a file needs besides the file. */
export interface RingPorts {
  /** Called once when others than the owner may read the file. */
  readonly warn: (message: string) => void;
  /** What to do when there is no file. */
  readonly remedy?: ((path: string) => string) | undefined;
  /** The outside keys, if a file names some. */
  readonly findOutside?: FindOutsideKey | undefined;
}

/** The provider for a source. */
export function kekProviderOf(source: KekSource, ports: RingPorts): KekProvider {
  return source.kind === 'file' ? fileKekProvider(source.path, ports) : inlineKekProvider(source.text);
}

/** Reads the ring from a file, plain or sealed. */
export function fileKekProvider(path: string, ports: RingPorts): KekProvider {
  const { warn, remedy = makeKek, findOutside = async () => undefined } = ports;
  // A ring that does not open is read again and again.
  let isOpenToOthers = false;
  return {
    stamp: () => stampOf(path),
    load: async () => {
      let bytes: Buffer;
      try {
        const { mode } = statSync(path);
        bytes = readFileSync(path);
        const wasOpen = isOpenToOthers;
        isOpenToOthers = (mode & 0o077) !== 0;
        if (isOpenToOthers && !wasOpen)
          warn('BUNKMS_KEK_FILE: the file is open to its group or to others; make it mode 0600');
      } catch (error) {
        throw new ConfigError([`BUNKMS_KEK_FILE: ${unreadable(path, error, remedy)}`]);
      }
      if (isSealedRing(bytes)) return (await openThroughSlots(bytes, findOutside)).keks;
      return takeKekRing('BUNKMS_KEK_FILE', bytes);
    },
    askSlots: async () => {
      const bytes = readFileSync(path);
      if (isSealedRing(bytes)) return await askSlots(sealedRingOf(bytes), findOutside);
      bytes.fill(0);
      return [];
    },
  };
}

/** How to make the first KEK of an installation. Another KEK would leave BunKMS sealed. */
function makeKek(path: string): string {
  return `put the KEK of the installation there; only for a new one, make it with: (umask 077; openssl rand -base64 32 > ${path})`;
}

/** Reads the ring from the variable `BUNKMS_KEK`, which does not change while the process runs. */
export function inlineKekProvider(text: string): KekProvider {
  return {
    stamp: () => '',
    load: async () => parseKekRing('BUNKMS_KEK', text),
    askSlots: async () => [],
  };
}

/** {@link takeKekRing} for a text. A string cannot be wiped, so a file is a better place for a KEK. */
export function parseKekRing(source: string, text: string): readonly KeyObject[] {
  return takeKekRing(source, Buffer.from(text));
}

/**
 * Reads a ring and wipes the bytes: one key per line, 32 bytes in base64 or as 64 hex digits. Empty lines and
 * lines that begin with `#` are skipped.
 *
 * @throws ConfigError naming `source` and every faulty line by number.
 */
export function takeKekRing(source: string, bytes: Buffer): readonly KeyObject[] {
  const faults: string[] = [];
  const keks: KeyObject[] = [];
  try {
    for (const [index, word] of wordsOf(bytes).entries()) {
      if (word.length === 0 || word[0] === HASH) continue;
      const key = readKeyHex(word) ?? readKeyText(word);
      if (key === undefined) {
        // A key that was appended to a file without a line break at its end.
        const joined = word.length >= 2 * KEY_TEXT_BYTES ? '; give each key a line of its own' : '';
        faults.push(`${source}: line ${index + 1} is neither 32 bytes in base64 nor 64 hex digits${joined}`);
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

/** Bytes of each KEK in {@link ringText}. */
export const RING_LINE_BYTES = KEY_TEXT_BYTES + 1;

/** The text of a plain ring: each KEK in base64, on a line of its own. The caller wipes it. */
export function ringText(keks: readonly KeyObject[]): Buffer {
  const text = Buffer.alloc(keks.length * RING_LINE_BYTES, LINE_FEED);
  for (const [at, kek] of keks.entries()) {
    const bytes = kek.export();
    writeKeyText(bytes, text.subarray(at * RING_LINE_BYTES));
    bytes.fill(0);
  }
  return text;
}

const BYTE_ORDER_MARK = Buffer.of(0xef, 0xbb, 0xbf);
const LINE_FEED = 0x0a;
const SPACE = 0x20;
const HASH = 0x23;

/** The trimmed lines; views of `bytes`, not copies. */
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
