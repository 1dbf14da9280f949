import type { KeyObject } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { KEY_BYTES, takeKey } from '@bundoc/shared/aead';
import { ConfigError } from '@bundoc/shared/config';

/** The most keys a ring may hold; a ring this long means that rotations were never finished. */
export const KEKS_MAX = 8;

/**
 * Where the key encryption keys come from. A port, so that an HSM or a cloud KMS can stand behind it.
 */
export interface KekProvider {
  /**
   * The ring, the current key first; one to {@link KEKS_MAX} different keys.
   *
   * @throws ConfigError when there is no usable ring. The message names the source and the line, never a content.
   */
  load(): Promise<readonly KeyObject[]>;
}

/** Reads the ring from a file. `warn` is told when others than the owner may read that file. */
export function fileKekProvider(path: string, warn: (message: string) => void): KekProvider {
  return {
    load: async () => {
      let text: string;
      try {
        if ((statSync(path).mode & 0o077) !== 0)
          warn('BUNKMS_KEK_FILE: the file is open to its group or to others; make it mode 0600');
        text = readFileSync(path, 'utf8');
      } catch (error) {
        throw new ConfigError([
          `BUNKMS_KEK_FILE: the file cannot be read (${(error as NodeJS.ErrnoException).code})`,
        ]);
      }
      return parseKekRing('BUNKMS_KEK_FILE', text);
    },
  };
}

/** Takes the ring from the text of the variable `BUNKMS_KEK`. */
export function inlineKekProvider(text: string): KekProvider {
  return { load: async () => parseKekRing('BUNKMS_KEK', text) };
}

/**
 * Reads a ring: one key a line, 32 bytes in base64 or as 64 hex digits, the current key first. Empty lines and lines
 * that begin with `#` are skipped.
 *
 * @throws ConfigError naming `source` and every faulty line by number.
 */
export function parseKekRing(source: string, text: string): readonly KeyObject[] {
  const faults: string[] = [];
  const keks: KeyObject[] = [];
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const word = line.trim();
    if (word === '' || word.startsWith('#')) continue;
    const bytes = decodeKey(word);
    if (bytes === undefined) {
      faults.push(`${source}: line ${index + 1} is neither 32 bytes in base64 nor 64 hex digits`);
      continue;
    }
    const kek = takeKey(bytes);
    if (keks.some((other) => other.equals(kek))) faults.push(`${source}: line ${index + 1} repeats a key`);
    keks.push(kek);
  }
  if (keks.length > KEKS_MAX) faults.push(`${source}: holds more than ${KEKS_MAX} keys`);
  if (keks.length === 0 && faults.length === 0) faults.push(`${source}: holds no key`);
  if (faults.length > 0) throw new ConfigError(faults);
  return keks;
}

function decodeKey(word: string): Buffer | undefined {
  if (/^[0-9a-fA-F]{64}$/.test(word)) return Buffer.from(word, 'hex');
  const bytes = Buffer.from(word, 'base64');
  // Comparing the re-encoded text refuses what Buffer tolerates: missing padding, stray characters, loose bits.
  return bytes.length === KEY_BYTES && bytes.toString('base64') === word ? bytes : undefined;
}
