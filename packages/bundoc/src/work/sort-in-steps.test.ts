import fc from 'fast-check';
import { expect, it } from 'vitest';
import { SlowSteps } from '../testing/slow-steps.ts';
import { sortInSteps } from './sort-in-steps.ts';

const sorted = (texts: readonly string[]) => [...texts].sort((a, b) => (a < b ? -1 : Number(a > b)));

it('texts are sorted unit by unit, however many there are', async () => {
  const text = fc.oneof(fc.constantFrom('', 'a', 'b'), fc.string({ unit: 'binary' }));
  await fc.assert(
    fc.asyncProperty(fc.array(text, { maxLength: 70 }), async (texts) => {
      expect(await sortInSteps(texts, new SlowSteps().work('query'))).toEqual(sorted(texts));
    }),
  );
});

it('a sort yields in proportion to the characters that it compares', async () => {
  const turnsFor = async (count: number, length: number) => {
    const steps = new SlowSteps();
    const texts = Array.from({ length: count }, (_, n) => `${(n * 7_919) % count}`.padStart(length, '0'));
    expect(await sortInSteps(texts, steps.work('query'))).toEqual(sorted(texts));
    return steps.turns;
  };
  const few = await turnsFor(1_024, 100);
  expect(few).toBeGreaterThanOrEqual(3);
  // Ten times as long, and 16 times as many in 14 rounds instead of ten.
  expect(await turnsFor(1_024, 1_000)).toBeGreaterThan(5 * few);
  expect(await turnsFor(16_384, 100)).toBeGreaterThan(15 * few);
});
