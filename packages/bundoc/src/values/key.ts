import { createHash } from 'node:crypto';
import { type Decimal, decimalOf, POINT_MAX } from '@bundoc/shared/json/decimal';
import { sortedNames } from './compare.ts';
import { type ObjectValue, typeOf, type Value } from './value.ts';

/**
 * Encodes values as texts whose order, unit by unit, is the order of the values; equal values have equal
 * texts. Each unit is a byte (Latin-1). No text is a prefix of another, so several can be concatenated in one
 * key. In memory only: never stored in the clear.
 */
const MISSING = '\x02';
const NULL = '\x03';
const FALSE = '\x04';
const TRUE = '\x05';
const NUMBER = '\x06';
const STRING = '\x07';
const ARRAY = '\x08';
const OBJECT = '\x09';
/** Ends arrays and objects: sorts before the first unit of any element. */
const END = '\x00';
const MEMBER = '\x01';

/** Units of one value in a key; a digest replaces the rest. */
export const KEY_PART_MAX = 512;
const DIGEST_BYTES = 16;

/** Encodes a value, or its absence, which sorts before all values. */
export function encodeExactly(value: Value | undefined): string {
  if (value === undefined) return MISSING;
  switch (typeOf(value)) {
    case 'null':
      return NULL;
    case 'boolean':
      return value === true ? TRUE : FALSE;
    case 'number':
      return NUMBER + encodeNumber(value as number | Decimal);
    case 'string':
      return STRING + encodeString(value as string);
    case 'array':
      return ARRAY + (value as readonly Value[]).map(encodeExactly).join('') + END;
    case 'object':
      return OBJECT + encodeMembers(value as ObjectValue) + END;
  }
}

/**
 * {@link encodeExactly} with a bounded length: a longer text is cut to its first {@link KEY_PART_MAX} units
 * and a digest of the whole. This keeps equality, and the order except among values that agree in those
 * units.
 */
export function encodeKeyPart(value: Value | undefined): string {
  const exact = encodeExactly(value);
  if (exact.length <= KEY_PART_MAX) return exact;
  const digest = createHash('sha256').update(exact, 'latin1').digest();
  return exact.slice(0, KEY_PART_MAX) + digest.toString('latin1', 0, DIGEST_BYTES);
}

/** The key with the inverted order. */
export function invertOrder(key: string): string {
  const bytes = Buffer.from(key, 'latin1');
  for (let at = 0; at < bytes.length; at++) bytes[at] = 0xff - (bytes[at] as number);
  return bytes.toString('latin1');
}

export function laterKey(a: string, b: string): string {
  if (a < b) return b;
  return a;
}

export function earlierKey(a: string, b: string): string {
  if (a < b) return a;
  return b;
}

/** Length of a position in a key. */
export const POSITION_BYTES = 6;

/** The position at the end of a key. */
export function positionOf(key: string): number {
  let position = 0;
  for (let at = key.length - POSITION_BYTES; at < key.length; at++)
    position = position * 0x100 + key.charCodeAt(at);
  return position;
}

/** Encodes a creation position with a fixed length. */
export function encodePosition(position: number): string {
  const bytes = Buffer.allocUnsafe(POSITION_BYTES);
  bytes.writeUIntBE(position, 0, POSITION_BYTES);
  return bytes.toString('latin1');
}

/** Zero bytes are escaped, so that the end of a text sorts before everything that could follow. */
function encodeString(text: string): string {
  const bytes = utf8Of(text);
  return `${bytes.includes('\x00') ? bytes.replaceAll('\x00', '\x00\xff') : bytes}\x00\x00`;
}

/** The common start of all strings with this prefix. */
export function encodePrefix(prefix: string): string {
  return (STRING + encodeString(prefix)).slice(0, -2);
}

/**
 * UTF-8 as a text of bytes, which sorts by code point. A lone surrogate takes the three bytes of its number.
 */
function utf8Of(text: string): string {
  if (Buffer.byteLength(text) === text.length) return text;
  if (text.isWellFormed()) return Buffer.from(text).toString('latin1');
  // Has the three bytes of U+FFFD for a lone surrogate.
  const bytes = Buffer.from(text);
  let end = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.codePointAt(at) as number;
    end += bytesOf(code);
    if (code > 0xffff) at++;
    else if ((code & 0xf800) === 0xd800) {
      bytes[end - 3] = 0xe0 | (code >> 12);
      bytes[end - 2] = 0x80 | ((code >> 6) & 0x3f);
      bytes[end - 1] = 0x80 | (code & 0x3f);
    }
  }
  return bytes.toString('latin1');
}

/** Length of a code point in UTF-8. */
function bytesOf(code: number): number {
  if (code < 0x80) return 1;
  if (code < 0x800) return 2;
  return code > 0xffff ? 4 : 3;
}

function encodeMembers(object: ObjectValue): string {
  return sortedNames(object)
    .map((name) => MEMBER + encodeString(name) + encodeExactly(object[name]))
    .join('');
}

/**
 * Sign, place of the decimal point, digits. A negative number is the complement of its opposite, so that a
 * larger magnitude sorts first.
 */
function encodeNumber(number: number | Decimal): string {
  const { negative, digits, point } = decimalOf(number);
  if (digits === '') return '\x80';
  const magnitude = `${encodePoint(point)}${digits}\x00`;
  return negative ? `\x7f${invertOrder(magnitude)}` : `\x81${magnitude}`;
}

const SMALL_POINT_MAX = 100;

/** One byte for common places; seven more for places outside their range. */
function encodePoint(point: number): string {
  if (Math.abs(point) <= SMALL_POINT_MAX) return String.fromCharCode(0x80 + point);
  const bytes = Buffer.allocUnsafe(7);
  bytes[0] = point < 0 ? 0x01 : 0xff;
  bytes.writeUIntBE(point < 0 ? POINT_MAX + point : point, 1, 6);
  return bytes.toString('latin1');
}
