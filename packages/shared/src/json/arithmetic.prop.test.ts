import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ARITHMETIC_DIGITS_MAX, addNumbers, isComputable, multiplyNumbers } from './arithmetic.ts';
import { equalNumbers } from './decimal.ts';

describe('the sum of two JSON numbers', () => {
  it.each([
    ['1.10', '0.10', '1.20'],
    ['1.10', '0.1', '1.20'],
    ['0.1', '0.2', '0.3'],
    ['1.5', '1.5', '3.0'],
    ['1', '-1.00', '0.00'],
    ['-0', '0', '0'],
    ['-0.05', '0.01', '-0.04'],
    ['1e3', '1', '1001'],
    ['1E-3', '1', '1.001'],
    ['12345678901234567890', '1', '12345678901234567891'],
    ['0e999999999', '7', '7'],
    ['9'.repeat(33), '1', `1${'0'.repeat(33)}`],
  ])('of %s and %s is exactly %s', (a, b, sum) => {
    expect(addNumbers(a, b)).toBe(sum);
    expect(addNumbers(b, a)).toBe(sum);
  });

  it.each([
    ['9'.repeat(34), '1'],
    ['1e34', '1'],
    ['1e-35', '1'],
    ['1e999999999', '1'],
    ['1e-999999999', '1'],
    [`1e${'9'.repeat(400)}`, '1'],
    [`1e-${'9'.repeat(400)}`, '1'],
    ['9'.repeat(1_000_000), '1'],
    [`0.${'0'.repeat(1_000_000)}1`, '1'],
    [`${'1'.repeat(20)}`, `0.${'1'.repeat(20)}`],
  ])('has no value beyond the maximum of digits: %.20s and %.20s', (a, b) => {
    expect(addNumbers(a, b)).toBeUndefined();
    expect(addNumbers(b, a)).toBeUndefined();
  });

  it('with a zero of a huge exponent is computed without it, but not with as many decimals', () => {
    expect(addNumbers(`0e${'9'.repeat(400)}`, '1')).toBe('1');
    expect(addNumbers(`0e-${'9'.repeat(400)}`, '1')).toBeUndefined();
  });
});

describe('the product of two JSON numbers', () => {
  it.each([
    ['10.00', '1.5', '15.00'],
    ['1.5', '1.5', '2.25'],
    ['1.10', '0.10', '0.11'],
    ['0.5', '4', '2.0'],
    ['-3', '0', '0'],
    ['-0.0', '5', '0.0'],
    ['2e3', '-2', '-4000'],
    ['1e33', '1', `1${'0'.repeat(33)}`],
  ])('of %s and %s is exactly %s', (a, b, product) => {
    expect(multiplyNumbers(a, b)).toBe(product);
    expect(multiplyNumbers(b, a)).toBe(product);
  });

  it('has no value beyond the maximum of digits', () => {
    expect(multiplyNumbers('1e20', '1e20')).toBeUndefined();
    expect(multiplyNumbers('1e-20', '1e-20')).toBeUndefined();
    expect(multiplyNumbers('1e999999999', '0')).toBeUndefined();
  });
});

const number = fc
  .tuple(fc.bigInt({ min: -(10n ** 12n), max: 10n ** 12n }), fc.integer({ min: -4, max: 8 }))
  .map(([digits, decimals]) => `${digits}e${-decimals}`);

it('sums and products are those of fractions of whole numbers', () => {
  const fractionOf = (text: string) => {
    const [digits = '', exponent = ''] = text.split('e');
    return BigInt(digits) * 10n ** BigInt(8 + Number(exponent));
  };
  fc.assert(
    fc.property(number, number, (a, b) => {
      const [x, y] = [fractionOf(a), fractionOf(b)];
      expect(equalNumbers(String(addNumbers(a, b)), `${x + y}e-8`)).toBe(true);
      const product = multiplyNumbers(a, b);
      if (product !== undefined) expect(equalNumbers(product, `${x * y}e-16`)).toBe(true);
    }),
  );
});

it('every result can be computed with again', () => {
  expect(ARITHMETIC_DIGITS_MAX).toBe(34);
  fc.assert(
    fc.property(number, number, (a, b) => {
      for (const result of [addNumbers(a, b), multiplyNumbers(a, b)])
        if (result !== undefined) expect(isComputable(result)).toBe(true);
    }),
  );
});
