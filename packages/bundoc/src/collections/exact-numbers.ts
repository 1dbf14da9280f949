import { AppError } from '@bundoc/shared/contract/app-error';
import { Decimal, decimalOf } from '@bundoc/shared/json/decimal';
import { remainderOfDigits } from '../values/remainder.ts';
import { isObject, readValue, type Value } from '../values/value.ts';

/**
 * Requires every number in the text of a schema to be a double of at most 15 digits, or a safe integer. A
 * definition keeps doubles, so any other number would silently change.
 *
 * @throws AppError `invalid_request`.
 */
export function requireExactNumbers(definition: string): void {
  const value = readValue(definition);
  const place =
    isObject(value) && value['schema'] !== undefined ? placeOfInexact(value['schema']) : undefined;
  if (place === undefined) return;
  const message = `must be a number of at most 15 significant digits, between 1e-290 and 1e290, or a whole number up to ${Number.MAX_SAFE_INTEGER}`;
  throw new AppError('invalid_request', { errors: [{ path: ['body.schema', ...place].join('.'), message }] });
}

/** The path of a number that a definition would not keep; undefined for none. */
function placeOfInexact(value: Value, place: readonly string[] = []): readonly string[] | undefined {
  if (value instanceof Decimal) return isSafeInteger(value) ? undefined : place;
  if (typeof value !== 'object' || value === null) return undefined;
  for (const [name, one] of Object.entries(value)) {
    const found = placeOfInexact(one as Value, [...place, name]);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Whether it is one that zod and others give for the greatest integer of JavaScript, or less. */
function isSafeInteger(number: Decimal): boolean {
  const { digits, point } = number;
  return isInteger(number) && Number.isSafeInteger(Number(`0.${digits}e${point}`));
}

export function isInteger(number: number | Decimal): boolean {
  return typeof number === 'number' ? Number.isInteger(number) : number.point >= number.digits.length;
}

/** Largest integer, and power of ten, up to which doubles have all integers and powers of 15 digits. */
const EXACT_MAX = 1e15;
const SCALE_MAX = 22;
/** More factors of 2 or 5 than a divisor of at most 17 digits can have. */
const TENS_MAX = 60;

/**
 * Returns a test for multiples of a number, including zero, in decimal arithmetic (JSON Schema, validation,
 * 6.2.1).
 */
export function multiplesOf(divisor: number): (number: number | Decimal) => boolean {
  const { digits, point } = decimalOf(divisor);
  const by = BigInt(digits);
  const exponent = point - digits.length;
  // A double of at most 15 digits is this decimal exactly if the division gives it back.
  const scale = 10 ** Math.min(SCALE_MAX, Math.max(0, -exponent));
  const scaled = Math.round(divisor * scale);
  const isScaled = scaled <= EXACT_MAX && scaled / scale === divisor;
  return (number) => {
    if (isScaled && typeof number === 'number') {
      const count = Math.round(number * scale);
      if (Math.abs(count) <= EXACT_MAX && count / scale === number) return count % scaled === 0;
    }
    const { digits: dividend, point: place } = decimalOf(number);
    if (dividend === '') return true;
    // The digits do not end in zero, so no power of ten divides them.
    const tens = place - dividend.length - exponent;
    if (tens < 0) return false;
    return (remainderOfDigits(dividend, by) * 10n ** BigInt(Math.min(tens, TENS_MAX))) % by === 0n;
  };
}
