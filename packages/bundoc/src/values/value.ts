import { Decimal, parseNumber } from '@bundoc/shared/json/decimal';
import { readJson } from '@bundoc/shared/json/read';

/** A JSON value whose numbers are exact. */
export type Value = null | boolean | number | Decimal | string | readonly Value[] | ObjectValue;
export interface ObjectValue {
  readonly [name: string]: Value;
}

/** Types in the order of their values; {@link Value} has no other. */
export const TYPE_NAMES = ['null', 'boolean', 'number', 'string', 'array', 'object'] as const;
export type TypeName = (typeof TYPE_NAMES)[number];

export function typeOf(value: Value): TypeName {
  if (value === null) return 'null';
  if (typeof value === 'boolean') return 'boolean';
  if (isNumber(value)) return 'number';
  if (typeof value === 'string') return 'string';
  return isArray(value) ? 'array' : 'object';
}

export function isArray(value: Value): value is readonly Value[] {
  return Array.isArray(value);
}

export function isNumber(value: Value): value is number | Decimal {
  return typeof value === 'number' || value instanceof Decimal;
}

export function isObject(value: Value): value is ObjectValue {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Decimal);
}

/** Characters of a string, or digits of a number, that cost as much as one more value. */
const CHARACTERS_OF_ONE_VALUE = 64;

/**
 * The number of values in a value: itself, elements and members; long strings, names and numbers by their
 * length.
 */
export function weightOf(value: Value): number {
  if (typeof value === 'string') return 1 + Math.floor(value.length / CHARACTERS_OF_ONE_VALUE);
  if (value instanceof Decimal) return 1 + Math.floor(value.digits.length / CHARACTERS_OF_ONE_VALUE);
  let weight = 1;
  if (isArray(value)) for (const element of value) weight += weightOf(element);
  else if (isObject(value))
    for (const name in value)
      weight += Math.floor(name.length / CHARACTERS_OF_ONE_VALUE) + weightOf(value[name] as Value);
  return weight;
}

const [QUOTE, BACKSLASH, COMMA, BRACKET, BRACE] = Buffer.from('"\\,[{');

/**
 * Whether a value is heavier than `weightMax`, from its valid JSON text. It may be so for a value that is a
 * little lighter.
 */
export function isHeavy(text: Buffer, weightMax: number): boolean {
  let weight = 1 + Math.floor(text.length / CHARACTERS_OF_ONE_VALUE);
  let isInString = false;
  for (let at = 0; at < text.length && weight <= weightMax; at++) {
    const byte = text[at];
    if (byte === QUOTE) isInString = !isInString;
    else if (isInString) {
      if (byte === BACKSLASH) at++;
    } else if (byte === COMMA || byte === BRACKET || byte === BRACE) weight++;
  }
  return weight > weightMax;
}

/**
 * Matches texts that `JSON.parse` may get wrong. These are numbers with an exponent or with more digits than
 * a double keeps, and escapes (V8 may misread escaped names, see `json/read.ts` of shared). It also matches
 * inside strings, which only costs time.
 */
const INEXACT = /\\|(?:^|[:[,\s])-?\d(?:[\d.]{15}|[\d.]*[eE])/;

/**
 * The value of a JSON text.
 *
 * @param text is valid, within the nesting limit of documents, without duplicate names and without the name
 *   `__proto__`. The caller has checked that, or checked it before the text was stored.
 */
export function readValue(text: string): Value {
  if (!INEXACT.test(text)) return JSON.parse(text) as Value;
  return readJson(text, parseNumber) as Value;
}

/** {@link readValue} for a text that was already parsed: usually the parsed value is exact. */
export function exactValue({ value, text }: { readonly value: unknown; readonly text: string }): Value {
  return INEXACT.test(text) ? (readJson(text, parseNumber) as Value) : (value as Value);
}
