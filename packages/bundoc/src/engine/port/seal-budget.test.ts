import { describe, expect, it } from 'vitest';
import { SEAL_LIMITS, SealBudget, type SealCount } from './seal-budget.ts';

/**
 * Seals this many times, in parts of `each`, as a store does. @returns the number of parts with a
 * reservation.
 */
function seal(budget: SealBudget, seals: number, each = 1): number {
  let reservations = 0;
  for (let left = seals; left > 0; left -= each) {
    const { reservation } = budget.planFor(each);
    if (reservation !== undefined) {
      budget.reserved(reservation);
      reservations++;
    }
    for (let n = 0; n < each; n++) budget.sealed();
  }
  return reservations;
}

const countOf = (counts: readonly SealCount[]) =>
  Math.max(0, ...counts.filter(({ version }) => version === 1).map(({ count }) => count));

describe('the budget of seals', () => {
  it.each([1, 10, 100])(
    'counts at most 256 more after a store is opened, seals %i times, and is closed without a checkpoint',
    (seals) => {
      let counts: SealCount[] = [];
      for (let cycle = 1; cycle <= 50; cycle++) {
        const budget = new SealBudget(SEAL_LIMITS, 1, counts);
        seal(budget, seals);
        counts = budget.durable;
        expect(countOf(counts)).toBeGreaterThanOrEqual(cycle * seals);
        expect(countOf(counts)).toBeLessThanOrEqual(cycle * (256 + seals));
      }
    },
  );

  it('reserves more at a time the more is sealed, so a million seals take few reservations', () => {
    const budget = new SealBudget(SEAL_LIMITS, 1, []);
    const reservations = seal(budget, 1_000_000, 10);
    expect(reservations).toBeLessThan(40);
    expect(countOf(budget.durable)).toBeLessThanOrEqual(1_000_000 + SEAL_LIMITS.reserve);
    // No more than the limit at a time.
    seal(budget, 3_000_000, 1_000);
    expect(countOf(budget.durable)).toBeLessThanOrEqual(4_000_000 + SEAL_LIMITS.reserve);
  });

  it('never lags so far that a crash forgets more than 256 seals', () => {
    const budget = new SealBudget(SEAL_LIMITS, 1, []);
    for (const each of [1, 200, 256, 257, 1_000, 100_000, 3]) {
      const { mustWait, reservation } = budget.planFor(each);
      const durable = countOf(budget.durable);
      if (mustWait) expect(reservation).toBeDefined();
      else expect(usedAfter(budget, each) - durable).toBeLessThanOrEqual(256);
      if (reservation !== undefined) budget.reserved(reservation);
      for (let n = 0; n < each; n++) budget.sealed();
    }
  });

  it('returns unused reservations at a checkpoint', () => {
    const budget = new SealBudget(SEAL_LIMITS, 1, [{ version: 1, count: 500 }]);
    seal(budget, 7);
    expect(budget.settle()).toEqual([{ version: 1, count: 507 }]);
  });
});

/** The seals so far and those of one more part: what a copy of the budget would record at a checkpoint. */
function usedAfter(budget: SealBudget, seals: number): number {
  const before = budget.durable;
  const used = countOf(budget.settle());
  for (const count of before) budget.reserved(count);
  return used + seals;
}
