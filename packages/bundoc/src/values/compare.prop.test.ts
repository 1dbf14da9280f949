import fc from 'fast-check';
import { expect, it } from 'vitest';
import { compareValues } from './compare.ts';
import { encodeExactly } from './key.ts';

/** Units around surrogate pairs: halves may stand alone, since JSON can escape them. */
const unit = fc.constantFrom('a', 'é', '\ud83d', '\ude00', '\ude01', '\ue000', '\uffff');
const text = fc.array(unit, { maxLength: 5 }).map((units) => units.join(''));

function byCodePoint(a: string, b: string): number {
  const [left, right] = [a, b].map((one) => Array.from(one, (character) => character.codePointAt(0) ?? 0));
  for (const [at, point] of (left ?? []).entries()) {
    const other = right?.[at];
    if (other === undefined || point !== other) return other === undefined ? 1 : point - other;
  }
  return (left?.length ?? 0) - (right?.length ?? 0);
}

it('strings are ordered by code point, even where halves of surrogate pairs stand alone', () => {
  fc.assert(
    fc.property(text, text, (a, b) => {
      const order = Math.sign(byCodePoint(a, b));
      expect(Math.sign(compareValues(a, b))).toBe(order);
      const [x, y] = [encodeExactly(a), encodeExactly(b)];
      expect(Number(x > y) - Number(x < y)).toBe(order);
    }),
    { numRuns: 2_000 },
  );
});
