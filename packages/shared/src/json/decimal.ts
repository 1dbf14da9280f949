/**
 * A JSON number as `0.DIGITS × 10^exponent`: no zeros at either end of `digits`; zero has none, no sign, and
 * the exponent 0.
 */
export interface Decimal {
  readonly negative: boolean;
  readonly digits: string;
  readonly exponent: bigint;
}

/** The exact value of a JSON number (RFC 8259, section 6), however many digits it has. */
export function parseDecimal(text: string): Decimal {
  const negative = text.startsWith('-');
  const exponentAt = text.search(/[eE]/);
  const mantissa = text.slice(negative ? 1 : 0, exponentAt === -1 ? undefined : exponentAt);
  const point = mantissa.indexOf('.');
  const whole = point === -1 ? mantissa : mantissa.slice(0, point);
  const all = point === -1 ? mantissa : whole + mantissa.slice(point + 1);
  let start = 0;
  while (all[start] === '0') start++;
  let end = all.length;
  while (end > start && all[end - 1] === '0') end--;
  if (start === end) return { negative: false, digits: '', exponent: 0n };
  const scale = exponentAt === -1 ? 0n : BigInt(text.slice(exponentAt + 1).replace('+', ''));
  return { negative, digits: all.slice(start, end), exponent: scale + BigInt(whole.length - start) };
}

/**
 * Whether two JSON numbers are the same: `1` and `1.0`, but not `12345678901234567890` and
 * `12345678901234567891`.
 */
export function equalDecimals(a: string, b: string): boolean {
  const left = parseDecimal(a);
  const right = parseDecimal(b);
  return left.negative === right.negative && left.digits === right.digits && left.exponent === right.exponent;
}
