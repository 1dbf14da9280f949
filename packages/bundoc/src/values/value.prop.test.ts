import fc from 'fast-check';
import { expect, it } from 'vitest';
import { isHeavy, readValue, weightOf } from './value.ts';

it('a value is found to be heavy from its text if it is, and not if it has half the weight', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 4 }), fc.nat(2), (value, spaces) => {
      const text = JSON.stringify(value, undefined, spaces);
      // JSON.stringify writes -0 as 0, and readValue takes no name `__proto__`.
      fc.pre(!text.includes('__proto__'));
      const weight = weightOf(readValue(text));
      const bytes = Buffer.from(text);
      expect(isHeavy(bytes, weight - 1)).toBe(true);
      expect(isHeavy(bytes, 2 * weight + Math.floor(bytes.length / 64))).toBe(false);
    }),
  );
});

it('commas and brackets in strings do not count, also behind escaped quotes', () => {
  const value = ['a,b', '\\"[{,', '\\'.repeat(40), '"'.repeat(30), ',[{'.repeat(10)];
  expect(isHeavy(Buffer.from(JSON.stringify(value)), 12)).toBe(false);
  expect(isHeavy(Buffer.from('[1,2,3]'), 3)).toBe(true);
  expect(isHeavy(Buffer.from('[1,2,3]'), 4)).toBe(false);
});
