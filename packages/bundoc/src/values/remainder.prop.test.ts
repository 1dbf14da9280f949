import { parseNumber } from '@bundoc/shared/json/decimal';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { remainderBy } from './remainder.ts';

describe('a remainder', () => {
  it('is that of integers of any size, for any number of digits and zeros', () => {
    const divisor = fc
      .integer({ min: 1, max: 15 })
      .chain((digits) => fc.integer({ min: 1, max: 10 ** digits - 1 }))
      .chain((size) => fc.constantFrom(size, -size));
    const number = fc.tuple(fc.bigInt({ min: -(10n ** 60n), max: 10n ** 60n }), fc.nat({ max: 400 }));
    const small = fc.tuple(fc.bigInt({ min: -(2n ** 53n), max: 2n ** 53n }), fc.nat({ max: 3 }));
    fc.assert(
      fc.property(divisor, fc.oneof(number, small), (by, [whole, zeros]) => {
        const expected = Number((whole * 10n ** BigInt(zeros)) % BigInt(by));
        expect(remainderBy(by)(parseNumber(`${whole}e${zeros}`))).toSatisfy((found) => found === expected);
      }),
      { numRuns: 3_000 },
    );
  });

  it('exists for whole numbers alone', () => {
    for (const text of ['0.5', '1e-1', '12345678901234567.5', '1e-999999999999', '-2.000000000000000000001'])
      expect(remainderBy(1)(parseNumber(text))).toBeUndefined();
  });

  it('of the largest number takes no longer than of a small one', () => {
    expect(remainderBy(3)(parseNumber('2e1000000000000'))).toBe(2);
  });
});
