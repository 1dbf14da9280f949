import { Decimal, decimalOf, toDouble } from '@bundoc/shared/json/decimal';
import { readJson } from '@bundoc/shared/json/read';
import { isArray, readValue, typeOf, type Value } from '../values/value.ts';

/** A document as Ajv can look at it, whose numbers are doubles, and what of them those do not say. */
export interface ReadDocument {
  readonly document: unknown;
  /** Absent where every number is a double of at most 15 digits, which stands for no other such number. */
  readonly numbers?: ExactNumbers;
  /** Of its text, where that is known. */
  readonly length?: number;
}

/**
 * Where a number may stand that `JSON.parse` rounds: one with an exponent, or of 16 characters. It finds some
 * in strings, too; that costs time only.
 */
const MAY_BE_ROUNDED = /[:[,]\s*-?\d(?:[\d.]{15}|[\d.]*[eE])/;

/** @param text is the JSON of a stored document or of one that is about to be, without its metadata. */
export function readForSchema(text: string): ReadDocument {
  if (MAY_BE_ROUNDED.test(text)) return withDoubles(readValue(text));
  // V8 may misread escaped names, see `json/read.ts` of shared.
  return { document: text.includes('\\') ? readJson(text) : JSON.parse(text), length: text.length };
}

/** @param value is nobody else's: its numbers are replaced in place. */
function withDoubles(value: Value): ReadDocument {
  const numbers = new ExactNumbers();
  const document = numbers.replaceIn(value, undefined, '');
  return numbers.isEmpty ? { document } : { document, numbers };
}

/**
 * The exact values of the numbers in one document that a double does not hold, by where they stand. In the
 * document they are the nearest finite doubles.
 */
export class ExactNumbers {
  readonly #byHolder = new Map<unknown, Map<string, Decimal>>();

  get isEmpty(): boolean {
    return this.#byHolder.size === 0;
  }

  /** How many times that many digits all of them have. */
  timesDigits(count: number): number {
    let times = 0;
    for (const byName of this.#byHolder.values())
      for (const number of byName.values()) times += Math.floor(number.digits.length / count);
    return times;
  }

  /** @param holder is the object or array that the number is in; undefined for a whole document. */
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
   * Remembers the numbers that doubles do not hold, and puts doubles in their places. @returns what the value
   * is then.
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

/** Where in a value a number stands that a double of at most 15 digits is not; undefined for none. */
export function placeOfInexact(value: Value, place: readonly string[] = []): readonly string[] | undefined {
  if (value instanceof Decimal) return place;
  if (typeof value !== 'object' || value === null) return undefined;
  for (const [name, one] of Object.entries(value)) {
    const found = placeOfInexact(one as Value, [...place, name]);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Finite, so that it is a number for Ajv as well. */
function nearestDouble(number: Decimal): number {
  return Math.max(-Number.MAX_VALUE, Math.min(Number.MAX_VALUE, toDouble(number)));
}

export function isInteger(number: number | Decimal): boolean {
  return typeof number === 'number' ? Number.isInteger(number) : number.point >= number.digits.length;
}

/** Digits that are divided at a time. */
const CHUNK = 15;
/** More factors of 2 or 5 than a divisor of so few digits can have. */
const TENS_MAX = 1_100;

/**
 * Makes what tells multiples of a number, zero among them, by the decimals that the numbers are (JSON Schema,
 * validation, 6.2.1).
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
    // The digits end in no zero, so no power of ten divides them.
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
