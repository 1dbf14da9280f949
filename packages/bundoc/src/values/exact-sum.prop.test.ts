import { parseNumber, toDouble } from '@bundoc/shared/json/decimal';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ExactSum, SUM_PLACES_MAX } from './exact-sum.ts';
import { writeValue } from './write-value.ts';

const SCALE = 1_500;
/** The number in units of 10^-1500. */
function unitsOf(text: string): bigint {
  const [, sign, whole, part = '', exponent = '0'] = /^(-?)(\d+)(?:\.(\d+))?(?:e(.+))?$/.exec(
    text,
  ) as unknown as string[];
  const units = BigInt(`${whole}${part}`) * 10n ** BigInt(SCALE - part.length + Number(exponent));
  return sign === '-' ? -units : units;
}

function sumOf(texts: readonly string[]): ExactSum {
  const sum = new ExactSum();
  for (const text of texts) expect(sum.add(parseNumber(text))).toBe(true);
  return sum;
}

const money = fc.integer({ min: -99_999_999, max: 99_999_999 }).map((cents) => `${cents}e-2`);
const plain = fc
  .tuple(fc.integer({ min: -(10 ** 15) + 1, max: 10 ** 15 - 1 }), fc.integer({ min: -30, max: 20 }))
  .map(([digits, exponent]) => `${digits}e${exponent}`);
const long = fc
  .tuple(fc.bigInt({ min: -(10n ** 40n), max: 10n ** 40n }), fc.integer({ min: -900, max: 900 }))
  .map(([digits, exponent]) => `${digits}e${exponent}`);
const numbers = fc.oneof(
  fc.array(money, { maxLength: 40 }),
  fc.array(plain, { maxLength: 20 }),
  fc.array(fc.oneof(money, plain, long), { maxLength: 20 }),
);

describe('a sum', () => {
  it('is exact, and the same in any order', () => {
    fc.assert(
      fc.property(
        numbers.chain((all) =>
          fc.tuple(fc.constant(all), fc.shuffledSubarray(all, { minLength: all.length })),
        ),
        ([all, shuffled]) => {
          const { total } = sumOf(all);
          const expected = all.reduce((sum, text) => sum + unitsOf(text), 0n);
          expect(total).toEqual(parseNumber(`${expected}e-${SCALE}`));
          expect(sumOf(shuffled).total).toEqual(total);
        },
      ),
      { numRuns: 2_000 },
    );
  });

  it('of prices has no more places than they have', () => {
    expect(sumOf(Array.from({ length: 27 }, () => '0.10')).total).toBe(2.7);
    expect(sumOf(Array.from({ length: 100_000 }, () => '0.01')).total).toBe(1_000);
    expect(sumOf(['0.1', '0.2', '-0.3']).total).toBe(0);
    expect(writeValue(sumOf(['9007199254740993', '0.01']).total)).toBe('9007199254740993.01');
    expect(writeValue(sumOf(['1e20', '1e-20', '-1e20']).total)).toBe('1e-20');
    expect(Object.is(sumOf(['-0', '-0.0']).total, 0)).toBe(true);
    expect(new ExactSum().total).toBe(0);
  });

  it('loses nothing when many numbers are large', () => {
    const { total } = sumOf(
      Array.from({ length: 50_000 }, (_, at) => (at % 2 === 0 ? '999999999999999' : '0.5')),
    );
    expect(writeValue(total)).toBe(String(999_999_999_999_999n * 25_000n + 12_500n));
  });

  it('takes numbers with digits up to 1,000 places from the decimal point, and no others', () => {
    const sum = sumOf(['1e999', '-1e-1000', `9e${SUM_PLACES_MAX - 1}`]);
    const before = sum.total;
    for (const text of [
      '1e1000',
      '-1e1000',
      '1e-1001',
      '1e999999999999',
      '1e-999999999999',
      `0.${'1'.repeat(1_001)}`,
    ])
      expect([text, sum.add(parseNumber(text))]).toEqual([text, false]);
    expect(sum.total).toEqual(before);
    expect(sum.bytes).toBeLessThan(1_100);
  });
});

describe('an average', () => {
  it('is the nearest decimal of 34 digits, and the even one of two', () => {
    fc.assert(
      fc.property(
        numbers.filter(({ length }) => length > 0),
        (all) => {
          const { average } = sumOf(all);
          const sum = all.reduce((total, text) => total + unitsOf(text), 0n);
          const found = unitsOf(writeValue(average as number));
          // Half a unit of the last of 34 digits, and exact if there are fewer.
          const digits = String(found < 0n ? -found : found);
          const unit = digits.length > 34 ? 10n ** BigInt(digits.length - 34) : 1n;
          expect(found % unit).toBe(0n);
          const error = sum - found * BigInt(all.length);
          const size = (error < 0n ? -error : error) * 2n;
          const limit = unit * BigInt(all.length);
          expect(size <= limit).toBe(true);
          if (size === limit) expect((found / unit) % 2n).toBe(0n);
        },
      ),
      { numRuns: 2_000 },
    );
  });

  it.each([
    [['1', '2'], '1.5'],
    [['0.1', '0.2', '0.3'], '0.2'],
    [['1', '0', '0'], '0.3333333333333333333333333333333333'],
    [['2', '0', '0'], '0.6666666666666666666666666666666667'],
    [['-2', '0', '0'], '-0.6666666666666666666666666666666667'],
    [['2000000000000000000000000000000001', '0'], '1000000000000000000000000000000000'],
    [['2000000000000000000000000000000003', '0'], '1000000000000000000000000000000002'],
    [['-2000000000000000000000000000000003', '0'], '-1000000000000000000000000000000002'],
    [['2000000000000000000000000000000003.1', '0'], '1000000000000000000000000000000002'],
    [['2000000000000000000000000000000000.9', '0'], '1000000000000000000000000000000000'],
    [['19999999999999999999999999999999999', '0'], '1e34'],
    [['20000000000000000000000000000000010', '0'], '1e34'],
    [['20000000000000000000000000000000030', '0'], '10000000000000000000000000000000020'],
    [['1e-1000', '0'], '5e-1001'],
    [['-0'], '0'],
  ])('of %j is %s', (all, expected) => {
    const average = parseNumber(expected);
    expect(sumOf(all).average).toEqual(average);
  });

  it('of no numbers is none', () => {
    expect(new ExactSum().average).toBeUndefined();
  });

  it('is near to that of doubles', () => {
    fc.assert(
      fc.property(fc.array(money, { minLength: 1 }), (all) => {
        const doubles = all.reduce((sum, text) => sum + toDouble(parseNumber(text)), 0) / all.length;
        const average = sumOf(all).average as number;
        expect(Math.abs(toDouble(average) - doubles)).toBeLessThan(1e-3);
      }),
    );
  });
});
