import fc from 'fast-check';
import { expect, it } from 'vitest';
import { backoffMs } from './backoff.ts';

const BOUNDS = { firstMs: 100, maxMs: 5_000 };

it('a wait is between zero and a bound that doubles with each failure, up to the maximum', () => {
  const bounds = [1, 2, 3, 4, 5, 6, 7, 8, 2_000].map((failures) => backoffMs(BOUNDS, failures, () => 1));
  expect(bounds).toEqual([100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000]);
  expect(backoffMs(BOUNDS, 3, () => 0)).toBe(0);
});

it('a wait is proportional to the random number', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 100 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (failures, at) => {
        expect(backoffMs(BOUNDS, failures, () => at)).toBe(at * backoffMs(BOUNDS, failures, () => 1));
      },
    ),
  );
});
