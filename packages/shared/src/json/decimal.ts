/**
 * A JSON number that a double cannot represent exactly: `sign 0.digits × 10^point`, digits without zeros at
 * either end.
 *
 * Numbers of up to 15 significant digits and usual size are plain `number`s instead, because IEEE 754
 * binary64 keeps 15 digits. Distinct decimals of so few digits are distinct doubles in the same order, and
 * their shortest text gives the decimal back. The form of a number depends on its value alone, never on its
 * spelling: see {@link parseNumber}.
 */
export class Decimal {
  readonly negative: boolean;
  readonly digits: string;
  readonly point: number;

  constructor(negative: boolean, digits: string, point: number) {
    this.negative = negative;
    this.digits = digits;
    this.point = point;
  }
}

/**
 * Largest position of the decimal point. Numbers beyond it count as being at this bound, so that no exponent
 * makes a computation long. Their digits are still compared.
 */
export const POINT_MAX = 1_000_000_000_000;

const DOUBLE_DIGITS = 15;
/** Up to this point a double certainly keeps 15 digits: far from its smallest and largest values. */
const DOUBLE_POINT_MAX = 290;

/**
 * The exact value of a JSON number. Equal numbers have equal values in every spelling: `1`, `1.0`, `1e0`; `0`
 * and `-0`.
 *
 * @param text a number by the grammar of RFC 8259. Parsing takes time proportional to its length.
 */
export function parseNumber(text: string): number | Decimal {
  // Most numbers: short integers and fractions without an exponent.
  if (text.length <= DOUBLE_DIGITS && !/[eE]/.test(text)) return Number(text) + 0;
  const { negative, digits, point } = partsOf(text);
  if (digits === '') return 0;
  if (digits.length <= DOUBLE_DIGITS && Math.abs(point) <= DOUBLE_POINT_MAX)
    return Number(`${negative ? '-' : ''}0.${digits}e${point}`);
  return new Decimal(negative, digits, point);
}

interface Parts {
  readonly negative: boolean;
  /** Empty for zero. */
  readonly digits: string;
  readonly point: number;
}

function partsOf(text: string): Parts {
  const { negative, digits, point, exponent } = split(text);
  return { negative, digits, point: clamp(clamp(Number(exponent)) + point) };
}

interface Split extends Parts {
  /** As it is written, or `0`; it may have any number of digits. Not included in `point`. */
  readonly exponent: string;
}

function split(text: string): Split {
  const negative = text.startsWith('-');
  const exponentAt = text.search(/[eE]/);
  const mantissa = text.slice(negative ? 1 : 0, exponentAt < 0 ? undefined : exponentAt);
  const dot = mantissa.indexOf('.');
  const whole = dot < 0 ? mantissa : mantissa.slice(0, dot);
  const all = dot < 0 ? mantissa : whole + mantissa.slice(dot + 1);
  let first = 0;
  while (first < all.length && all[first] === '0') first++;
  let end = all.length;
  while (end > first && all[end - 1] === '0') end--;
  const exponent = exponentAt < 0 ? '0' : text.slice(exponentAt + 1);
  return { negative, digits: all.slice(first, end), point: whole.length - first, exponent };
}

function clamp(point: number): number {
  return Math.max(-POINT_MAX, Math.min(POINT_MAX, point));
}

/** The parts of a number's shortest decimal text. */
export function decimalOf(number: number | Decimal): Parts {
  return typeof number === 'number' ? partsOf(String(number)) : number;
}

/** Compares exactly. @returns a negative number, zero or a positive number. */
export function compareNumbers(a: number | Decimal, b: number | Decimal): number {
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  const x = decimalOf(a);
  const y = decimalOf(b);
  const signs = signOf(x) - signOf(y);
  if (signs !== 0) return signs;
  const magnitudes = x.point - y.point || (x.digits < y.digits ? -1 : Number(x.digits > y.digits));
  return x.negative ? -magnitudes : magnitudes;
}

function signOf({ negative, digits }: Parts): number {
  if (digits === '') return 0;
  return negative ? -1 : 1;
}

/**
 * Whether two JSON numbers are equal: `1` and `1.0` are, `12345678901234567890` and `12345678901234567891`
 * are not. Unlike {@link compareNumbers}, it distinguishes all exponents.
 */
export function equalNumbers(a: string, b: string): boolean {
  const x = split(a);
  const y = split(b);
  if (x.digits !== y.digits) return false;
  return x.digits === '' || (x.negative === y.negative && exactPoint(x) === exactPoint(y));
}

function exactPoint({ point, exponent }: Split): bigint {
  return BigInt(exponent.replace('+', '')) + BigInt(point);
}

/** The nearest double; infinite beyond the largest. */
export function toDouble(number: number | Decimal): number {
  if (typeof number === 'number') return number;
  return Number(`${number.negative ? '-' : ''}0.${number.digits}e${number.point}`);
}
