import { Decimal, parseNumber } from './decimal.ts';

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
  if (typeof value === 'number' || value instanceof Decimal) return 'number';
  if (typeof value === 'string') return 'string';
  return isArray(value) ? 'array' : 'object';
}

export function isArray(value: Value): value is readonly Value[] {
  return Array.isArray(value);
}

export function isObject(value: Value): value is ObjectValue {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Decimal);
}

/** Characters of a string, and digits of a number, that take as long to look at as one more value. */
const CHARACTERS_OF_ONE_VALUE = 64;

/** Values in a value: itself, elements and members; long strings and numbers by their length. */
export function weightOf(value: Value): number {
  if (typeof value === 'string') return 1 + Math.floor(value.length / CHARACTERS_OF_ONE_VALUE);
  if (value instanceof Decimal) return 1 + Math.floor(value.digits.length / CHARACTERS_OF_ONE_VALUE);
  let weight = 1;
  if (isArray(value)) for (const element of value) weight += weightOf(element);
  else if (isObject(value)) for (const name in value) weight += weightOf(value[name] as Value);
  return weight;
}

/**
 * Where `JSON.parse` may be wrong about a value: a number with an exponent or with more digits than a double surely keeps, or an escape (V8
 * may misread escaped names, see `json/read.ts` of shared). It finds some of that inside strings, too; that costs time only.
 */
const INEXACT = /\\|(?:^|[:[,\s])-?\d(?:[\d.]{15}|[\d.]*[eE])/;

/**
 * The value of a JSON text.
 *
 * @param text is valid, nests no deeper than documents may, and has no name twice in an object and none that is `__proto__`: the
 * caller has checked that, or anyone who stored it.
 */
export function readValue(text: string): Value {
  if (!INEXACT.test(text)) return JSON.parse(text) as Value;
  return new Reader(text).value();
}

const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const BACKSLASH = 0x5c;

class Reader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  value(): Value {
    switch (this.#next()) {
      case '{':
        return this.#object();
      case '[':
        return this.#array();
      case '"':
        return this.#string();
      case 't':
        this.#at += 4;
        return true;
      case 'f':
        this.#at += 5;
        return false;
      case 'n':
        this.#at += 4;
        return null;
      default:
        return this.#number();
    }
  }

  /** The next character that is no white space, colon or comma. */
  #next(): string | undefined {
    const text = this.#text;
    for (;;) {
      const code = text.charCodeAt(this.#at);
      if (code > 0x20 && code !== COMMA && code !== COLON) return text[this.#at];
      if (Number.isNaN(code)) return undefined;
      this.#at++;
    }
  }

  #object(): ObjectValue {
    const object: Record<string, Value> = {};
    this.#at++;
    while (this.#next() === '"') {
      const name = this.#string();
      object[name] = this.value();
    }
    this.#at++;
    return object;
  }

  #array(): Value[] {
    const array: Value[] = [];
    this.#at++;
    for (let next = this.#next(); next !== ']' && next !== undefined; next = this.#next())
      array.push(this.value());
    this.#at++;
    return array;
  }

  #string(): string {
    const text = this.#text;
    const start = this.#at;
    let escaped = false;
    let at = start + 1;
    for (let code = text.charCodeAt(at); code !== QUOTE; code = text.charCodeAt(at)) {
      if (code === BACKSLASH) {
        escaped = true;
        at++;
      }
      at++;
    }
    this.#at = at + 1;
    return escaped ? (JSON.parse(text.slice(start, at + 1)) as string) : text.slice(start + 1, at);
  }

  #number(): number | Decimal {
    const start = this.#at;
    const text = this.#text;
    while (isNumeric(text.charCodeAt(this.#at))) this.#at++;
    return parseNumber(text.slice(start, this.#at));
  }
}

/** One of `+ - . 0-9 E e`. */
function isNumeric(code: number): boolean {
  return (
    (code >= 0x30 && code <= 0x39) ||
    code === 0x2b ||
    code === 0x2d ||
    code === 0x2e ||
    code === 0x45 ||
    code === 0x65
  );
}
