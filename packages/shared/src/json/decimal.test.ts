import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compareNumbers, Decimal, parseNumber, toDouble } from './decimal.ts';

/** A decimal as a pair of integers, compared as integers: independent of the code under test. */
const plain = fc.record({
  negative: fc.boolean(),
  digits: fc.stringMatching(/^(?:0|[1-9][0-9]{0,24})$/),
  exponent: fc.integer({ min: -40, max: 40 }),
});
type Plain = typeof plain extends fc.Arbitrary<infer T> ? T : never;

function scaled({ negative, digits, exponent }: Plain): bigint {
  const value = BigInt(digits) * 10n ** BigInt(exponent + 40);
  return negative ? -value : value;
}

/** Spellings of one number. */
function spellings({ negative, digits, exponent }: Plain): string[] {
  const sign = negative ? '-' : '';
  const integer = exponent >= 0 ? digits + (digits === '0' ? '' : '0'.repeat(exponent)) : undefined;
  const cut = digits.padStart(1 - exponent, '0');
  const fraction =
    exponent < 0 ? `${cut.slice(0, cut.length + exponent)}.${cut.slice(cut.length + exponent)}` : undefined;
  return [
    `${sign}${digits}e${exponent}`,
    `${sign}${digits}.000E+${exponent}`.replace('+-', '-'),
    ...(integer === undefined ? [] : [sign + integer, `${sign}${integer}.0`]),
    ...(fraction === undefined ? [] : [sign + fraction, `${sign}${fraction}00e0`]),
  ];
}

describe('numbers', () => {
  it('compare exactly by value', () => {
    fc.assert(
      fc.property(plain, plain, (a, b) => {
        const order = Math.sign(
          compareNumbers(parseNumber(spellings(a)[0] as string), parseNumber(spellings(b)[0] as string)),
        );
        const [x, y] = [scaled(a), scaled(b)];
        expect(order).toBe(x === y ? 0 : x < y ? -1 : 1);
      }),
      { numRuns: 2_000 },
    );
  });

  it('have the same value in every spelling', () => {
    fc.assert(
      fc.property(plain, (number) => {
        const [first, ...others] = spellings(number).map(parseNumber);
        for (const other of others) expect(other).toEqual(first);
      }),
    );
  });

  it.each([
    ['12345678901234567890', '12345678901234567891', -1],
    ['9007199254740993', '9007199254740992', 1],
    ['0.1', '0.10000000000000000001', -1],
    ['1e400', '1e401', -1],
    ['-1e400', '-1e401', 1],
    ['1e-400', '0', 1],
    ['-1e-400', '0', -1],
    ['1e9999999999999999999999', '1e308', 1],
    ['-0', '0', 0],
    ['0e999999', '0.000', 0],
    ['100', '1e2', 0],
  ])('%s against %s', (a, b, order) => {
    expect(Math.sign(compareNumbers(parseNumber(a), parseNumber(b))) + 0).toBe(order);
  });

  it('are parsed in time proportional to their text, whatever their exponent', () => {
    const huge = parseNumber(`1${'0'.repeat(1_000_000)}.5e${'9'.repeat(1_000_000)}`);
    expect(huge).toBeInstanceOf(Decimal);
    expect(compareNumbers(huge, parseNumber('1e999999999999999999'))).toBeGreaterThan(0);
  });

  it('convert to the nearest double', () => {
    expect(toDouble(parseNumber('12345678901234567890'))).toBe(Number('12345678901234567890'));
    expect(toDouble(parseNumber('1e400'))).toBe(Number.POSITIVE_INFINITY);
    expect(toDouble(parseNumber('-123456789.123456789123e-3'))).toBe(Number('-123456.789123456789123'));
  });
});
