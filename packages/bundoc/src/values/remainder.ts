import { type Decimal, decimalOf, POINT_MAX } from '@bundoc/shared/json/decimal';

/** Digits divided at a time: a large integer of all digits would take the square of their number. */
const CHUNK = 15;

/** The remainder of a text of digits. */
export function remainderOfDigits(digits: string, divisor: bigint): bigint {
  let rest = 0n;
  for (let at = 0; at < digits.length; at += CHUNK) {
    const chunk = digits.slice(at, at + CHUNK);
    rest = (rest * 10n ** BigInt(chunk.length) + BigInt(chunk)) % divisor;
  }
  return rest;
}

/** The bits of the largest exponent. */
const EXPONENT_BITS = Math.ceil(Math.log2(POINT_MAX));

/**
 * The exact remainders of numbers, with their sign, as of `%` in C; undefined for a number that is not whole.
 *
 * @param divisor a whole number of at most 15 digits, not 0.
 */
export function remainderBy(divisor: number): (number: number | Decimal) => number | undefined {
  const by = BigInt(Math.abs(divisor));
  // The remainders of 10, 10², 10⁴, … give that of any power in as many steps as the exponent has bits.
  const squares = [10n % by];
  while (squares.length < EXPONENT_BITS) squares.push((squares.at(-1) as bigint) ** 2n % by);
  return (number) => {
    // A larger double may stand for another decimal.
    if (typeof number === 'number' && Math.abs(number) < Number.MAX_SAFE_INTEGER)
      return Number.isInteger(number) ? number % divisor : undefined;
    const { negative, digits, point } = decimalOf(number);
    let zeros = point - digits.length;
    if (zeros < 0) return undefined;
    let rest = remainderOfDigits(digits, by);
    for (let at = 0; zeros > 0; at++, zeros = Math.floor(zeros / 2))
      if (zeros % 2 === 1) rest = (rest * (squares[at] as bigint)) % by;
    return negative ? -Number(rest) : Number(rest);
  };
}
