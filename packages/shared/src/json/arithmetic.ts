/** Maximum digits of a term, a factor and a result, before and after the decimal point together. */
export const ARITHMETIC_DIGITS_MAX = 34;

/** A number as it is written without an exponent: `coefficient / 10^decimals`. */
interface Scaled {
  readonly coefficient: bigint;
  readonly decimals: number;
}

/**
 * The exact sum of two JSON numbers, with the decimals of the one that has more: `1.10 + 0.1` is `1.20`.
 *
 * @returns undefined when a number has over {@link ARITHMETIC_DIGITS_MAX} digits.
 */
export function addNumbers(a: string, b: string): string | undefined {
  const [x, y] = [scaledOf(a), scaledOf(b)];
  if (x === undefined || y === undefined) return undefined;
  const decimals = Math.max(x.decimals, y.decimals);
  return written({ coefficient: coefficientAt(x, decimals) + coefficientAt(y, decimals), decimals });
}

/**
 * The exact product of two JSON numbers. It has the decimals of the one that has more, and others only if
 * they are not zeros at the end: `10.00 * 1.5` is `15.00`, and `1.5 * 1.5` is `2.25`.
 *
 * @returns undefined when a number has over {@link ARITHMETIC_DIGITS_MAX} digits.
 */
export function multiplyNumbers(a: string, b: string): string | undefined {
  const [x, y] = [scaledOf(a), scaledOf(b)];
  if (x === undefined || y === undefined) return undefined;
  let coefficient = x.coefficient * y.coefficient;
  let decimals = x.decimals + y.decimals;
  while (decimals > Math.max(x.decimals, y.decimals) && coefficient % 10n === 0n) {
    coefficient /= 10n;
    decimals--;
  }
  return written({ coefficient, decimals });
}

/** Whether a JSON number has few enough digits to be added and multiplied. */
export function isComputable(text: string): boolean {
  return scaledOf(text) !== undefined;
}

/** No exponent makes this long: the digits are counted before they are computed. */
function scaledOf(text: string): Scaled | undefined {
  const [, sign, whole = '', fraction = '', exponent = '0'] =
    /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text) ?? [];
  const digits = (whole + fraction).replace(/^0+/, '');
  const decimals = fraction.length - Number(exponent);
  const zeros = digits === '' ? 0 : Math.max(0, -decimals);
  if (Math.max(digits.length + zeros, decimals) > ARITHMETIC_DIGITS_MAX) return undefined;
  const magnitude = BigInt(digits) * 10n ** BigInt(zeros);
  return { coefficient: sign === '-' ? -magnitude : magnitude, decimals: Math.max(0, decimals) };
}

function coefficientAt({ coefficient, decimals }: Scaled, more: number): bigint {
  return coefficient * 10n ** BigInt(more - decimals);
}

function written({ coefficient, decimals }: Scaled): string | undefined {
  const sign = coefficient < 0n ? '-' : '';
  const digits = String(coefficient)
    .slice(sign.length)
    .padStart(decimals + 1, '0');
  const text = `${sign}${digits.slice(0, digits.length - decimals)}${decimals > 0 ? `.${digits.slice(-decimals)}` : ''}`;
  return isComputable(text) ? text : undefined;
}
