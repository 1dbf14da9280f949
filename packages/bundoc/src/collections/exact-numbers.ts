import { Decimal, decimalOf, toDouble } from '@bundoc/shared/json/decimal';
import { readJson } from '@bundoc/shared/json/read';
import { isArray, readValue, typeOf, type Value } from '../values/value.ts';

/** A document for Ajv, whose numbers are doubles, and the exact values that doubles cannot represent. */
export interface ReadDocument {
  readonly document: unknown;
  /** Absent if every number is a double of at most 15 digits, which represents exactly one such number. */
  readonly numbers?: ExactNumbers;
  /** The length of its text, if known. */
  readonly length?: number;
}

/**
 * Matches numbers that `JSON.parse` may round: those with an exponent, or of 16 characters. It also matches
 * inside strings, which only costs time.
 */
const MAY_BE_ROUNDED = /[:[,]\s*-?\d(?:[\d.]{15}|[\d.]*[eE])/;

/** @param text the JSON of a stored or new document, without its metadata. */
export function readForSchema(text: string): ReadDocument {
  if (MAY_BE_ROUNDED.test(text)) return withDoubles(readValue(text));
  // V8 may misread escaped names, see `json/read.ts` of shared.
  return { document: text.includes('\\') ? readJson(text) : JSON.parse(text), length: text.length };
}

/** @param value owned by this function, which replaces its numbers in place. */
function withDoubles(value: Value): ReadDocument {
  const numbers = new ExactNumbers();
  const document = numbers.replaceIn(value, undefined, '');
  return numbers.isEmpty ? { document } : { document, numbers };
}

/**
 * The exact values of a document's numbers that a double cannot represent, by location. The document has the
 * nearest finite doubles.
 */
export class ExactNumbers {
  readonly #byHolder = new Map<unknown, Map<string, Decimal>>();

  get isEmpty(): boolean {
    return this.#byHolder.size === 0;
  }

  /** The sum over all numbers of their digits divided by `count`, rounded down. */
  timesDigits(count: number): number {
    let times = 0;
    for (const byName of this.#byHolder.values())
      for (const number of byName.values()) times += Math.floor(number.digits.length / count);
    return times;
  }

  /** @param holder the object or array that contains the number; undefined for a whole document. */
  at(number: number, holder: unknown, name: string | number | undefined): number | Decimal {
    return this.#byHolder.get(holder)?.get(String(name ?? '')) ?? number;
  }

  /** A part of the document with its exact numbers. */
  exactly(value: unknown, holder: unknown, name: string | number | undefined): Value {
    if (typeof value === 'number') return this.at(value, holder, name);
    if (typeof value !== 'object' || value === null) return value as Value;
    if (Array.isArray(value)) return value.map((one, at) => this.exactly(one, value, at));
    return Object.fromEntries(
      Object.entries(value).map(([member, one]) => [member, this.exactly(one, value, member)]),
    );
  }

  /**
   * Records the numbers that doubles cannot represent, and replaces them with doubles. @returns the changed
   * value.
   */
  replaceIn(value: Value, holder: unknown, name: string): unknown {
    if (value instanceof Decimal) {
      const byName = this.#byHolder.get(holder) ?? new Map<string, Decimal>();
      this.#byHolder.set(holder, byName.set(name, value));
      return nearestDouble(value);
    }
    if (isArray(value)) {
      const elements = value as unknown[];
      for (let at = 0; at < elements.length; at++)
        elements[at] = this.replaceIn(elements[at] as Value, value, String(at));
    } else if (typeOf(value) === 'object') {
      const members = value as Record<string, unknown>;
      for (const member in members) members[member] = this.replaceIn(members[member] as Value, value, member);
    }
    return value;
  }
}

/** The path of a number that is not a double of at most 15 digits; undefined for none. */
export function placeOfInexact(value: Value, place: readonly string[] = []): readonly string[] | undefined {
  if (value instanceof Decimal) return place;
  if (typeof value !== 'object' || value === null) return undefined;
  for (const [name, one] of Object.entries(value)) {
    const found = placeOfInexact(one as Value, [...place, name]);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Finite, because Ajv does not treat an infinite value as a number. */
function nearestDouble(number: Decimal): number {
  return Math.max(-Number.MAX_VALUE, Math.min(Number.MAX_VALUE, toDouble(number)));
}

export function isInteger(number: number | Decimal): boolean {
  return typeof number === 'number' ? Number.isInteger(number) : number.point >= number.digits.length;
}

/** Digits divided at a time. */
const CHUNK = 15;
/** More factors of 2 or 5 than a divisor of so few digits can have. */
const TENS_MAX = 1_100;

/**
 * Returns a test for multiples of a number, including zero, in decimal arithmetic (JSON Schema, validation,
 * 6.2.1).
 */
export function multiplesOf(divisor: number): (number: number | Decimal) => boolean {
  const { digits, point } = decimalOf(divisor);
  const by = BigInt(digits);
  const exponent = point - digits.length;
  const isWhole = Number.isSafeInteger(divisor);
  return (number) => {
    if (isWhole && typeof number === 'number' && Number.isSafeInteger(number)) return number % divisor === 0;
    const { digits: dividend, point: place } = decimalOf(number);
    if (dividend === '') return true;
    // The digits do not end in zero, so no power of ten divides them.
    const tens = place - dividend.length - exponent;
    if (tens < 0) return false;
    let rest = 0n;
    for (let at = 0; at < dividend.length; at += CHUNK) {
      const chunk = dividend.slice(at, at + CHUNK);
      rest = (rest * 10n ** BigInt(chunk.length) + BigInt(chunk)) % by;
    }
    return (rest * 10n ** BigInt(Math.min(tens, TENS_MAX))) % by === 0n;
  };
}
