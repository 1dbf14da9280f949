import { createHash } from 'node:crypto';
import { DamagedShare } from './errors.ts';

/** The first line of a share, and its version. */
const TAG = 'BUNKMS KEK SHARE 1';
/** Bytes of a line: six groups of four characters. */
const LINE_BYTES = 15;
/** Bytes at the beginning of a share that tell it from others: the id of its split, and its number. */
const NAME_BYTES = 9;
/** Characters of the checksum of a line. */
const CHECKSUM_CHARS = 4;
const CHECKSUM_BITS = 5 * CHECKSUM_CHARS;
/** RFC 4648, section 6: without 0, 1, 8 and 9, which look like letters. */
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

/** The text of a share, which a person can type. @param remarks for people; nothing reads them. */
export function writeShareText(share: Buffer, remarks: readonly string[]): string {
  const lines = linesOf(share).map((bytes, at) => {
    const groups = base32Of(bytes).match(/.{1,4}/g) ?? [];
    return `${numberOf(at)}  ${groups.join(' ')}  ${checksumOf(share, at, bytes)}`;
  });
  return [TAG, ...remarks.map((remark) => `# ${remark}`), ...lines, ''].join('\n');
}

/**
 * Reads a share, also one in lower case, or with other spaces and ends of lines.
 *
 * @param name of its file, for errors.
 * @param lengthOf the length that the first line requires, bytes; undefined when it is no share.
 * @throws DamagedShare naming the line, in the file and in the share.
 */
export function readShareText(
  name: string,
  text: string,
  lengthOf: (firstLine: Buffer) => number | undefined,
): Buffer {
  const [tag, ...lines] = text
    .split('\n')
    .map((line, at) => ({ line: at + 1, word: line.replace(/\s/g, '').toUpperCase() }))
    .filter(({ word }) => word !== '' && !word.startsWith('#'));
  if (tag?.word !== TAG.replaceAll(' ', ''))
    throw new DamagedShare(`${name}, line ${tag?.line ?? 1}: a KEK share begins with "${TAG}"`);
  let share = Buffer.alloc(0);
  let length = LINE_BYTES;
  for (const [at, { line, word }] of lines.entries()) {
    const where = `${name}, line ${line}`;
    if (share.length === length)
      throw new DamagedShare(`${where}: nothing may follow the line ${numberOf(at - 1)} of this share`);
    const bytes = bytesOfLine(word, at, share, Math.min(LINE_BYTES, length - share.length));
    if (bytes === undefined)
      throw new DamagedShare(
        `${where}: the line ${numberOf(at)} of the share is damaged or mistyped, or belongs to another share`,
      );
    share = Buffer.concat([share, bytes]);
    if (at > 0) continue;
    const wanted = lengthOf(bytes);
    if (wanted === undefined) throw new DamagedShare(`${where}: this is no share that BunKMS makes`);
    length = wanted;
  }
  if (share.length < length)
    throw new DamagedShare(`${name}: it ends before the line ${numberOf(lines.length)} of the share`);
  return share;
}

/** The bytes of a line with its number and checksum; undefined when it is not that line. */
function bytesOfLine(word: string, at: number, before: Buffer, length: number): Buffer | undefined {
  if (!word.startsWith(numberOf(at))) return undefined;
  const bytes = bytesOf(word.slice(numberOf(at).length, -CHECKSUM_CHARS));
  if (bytes?.length !== length) return undefined;
  const share = at === 0 ? bytes : before;
  return word.endsWith(checksumOf(share, at, bytes)) ? bytes : undefined;
}

/** Counted from one, two digits. */
function numberOf(at: number): string {
  return String(at + 1).padStart(2, '0');
}

function linesOf(share: Buffer): Buffer[] {
  const count = Math.ceil(share.length / LINE_BYTES);
  return Array.from({ length: count }, (_, at) => share.subarray(at * LINE_BYTES, (at + 1) * LINE_BYTES));
}

/** Tells a mistyped line, one of another place, and one of another share. It protects from no attacker. */
function checksumOf(share: Buffer, at: number, bytes: Buffer): string {
  const hash = createHash('sha256')
    .update('bunkms/kek-share-line/v1\0')
    .update(share.subarray(0, NAME_BYTES))
    .update(Buffer.of(at + 1))
    .update(bytes)
    .digest();
  return base32Of(hash.subarray(0, Math.ceil(CHECKSUM_BITS / 8))).slice(0, CHECKSUM_CHARS);
}

function base32Of(bytes: Uint8Array): string {
  let text = '';
  let bits = 0;
  let count = 0;
  for (const byte of bytes) {
    bits = ((bits << 8) | byte) & 0xfff;
    for (count += 8; count >= 5; count -= 5) text += ALPHABET[(bits >>> (count - 5)) & 31];
  }
  return count === 0 ? text : text + ALPHABET[(bits << (5 - count)) & 31];
}

/** Undefined for what {@link base32Of} does not make. */
function bytesOf(text: string): Buffer | undefined {
  const bytes: number[] = [];
  let bits = 0;
  let count = 0;
  for (const character of text) {
    const value = ALPHABET.indexOf(character);
    if (value === -1) return undefined;
    bits = ((bits << 5) | value) & 0xfff;
    count += 5;
    if (count < 8) continue;
    count -= 8;
    bytes.push((bits >>> count) & 0xff);
  }
  const isCanonical = count < 5 && (bits & ((1 << count) - 1)) === 0;
  return isCanonical ? Buffer.from(bytes) : undefined;
}
