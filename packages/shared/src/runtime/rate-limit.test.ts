import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AppError } from '../contract/app-error.ts';
import { FakeClock } from '../testing/fake-clock.ts';
import { RateLimit } from './rate-limit.ts';

const isTaken = (limit: RateLimit, caller: string): boolean => {
  try {
    limit.take(caller);
    return true;
  } catch (error) {
    if (error instanceof AppError && error.code === 'rate_limited') return false;
    throw error;
  }
};

describe('a rate limit', () => {
  it('allows a burst, then one per interval, and says how long to wait', () => {
    const clock = new FakeClock();
    const limit = new RateLimit({ clock, perSecond: 2, burst: 3 });
    for (let n = 0; n < 3; n++) limit.take('a');
    expect(() => limit.take('a')).toThrow(
      expect.objectContaining({ code: 'rate_limited', retryAfterS: 0.5 }),
    );
    clock.advance(499);
    expect(isTaken(limit, 'a')).toBe(false);
    clock.advance(1);
    expect([isTaken(limit, 'a'), isTaken(limit, 'a')]).toEqual([true, false]);
  });

  it('counts each caller separately', () => {
    const limit = new RateLimit({ clock: new FakeClock(), perSecond: 1, burst: 1 });
    expect(['a', 'b', 'a'].map((caller) => isTaken(limit, caller))).toEqual([true, true, false]);
  });

  it('never allows more than the burst and the rate, at any times of arrival', () => {
    const pauses = fc.array(fc.nat(2_000), { maxLength: 200 });
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 50 }),
        fc.integer({ min: 1, max: 20 }),
        pauses,
        (perSecond, burst, waits) => {
          const clock = new FakeClock();
          const limit = new RateLimit({ clock, perSecond, burst });
          let passed = 0;
          let elapsedMs = 0;
          for (const waitMs of waits) {
            clock.advance(waitMs);
            elapsedMs += waitMs;
            if (isTaken(limit, 'a')) passed++;
          }
          expect(passed).toBeLessThanOrEqual(burst + (elapsedMs / 1_000) * perSecond + 1e-6);
        },
      ),
    );
  });

  it('a rate limit of 0 means unlimited, and the wall clock has no effect', () => {
    const clock = new FakeClock();
    const none = new RateLimit({ clock, perSecond: 0, burst: 1 });
    const limit = new RateLimit({ clock, perSecond: 1, burst: 1 });
    limit.take('a');
    clock.setWall(clock.now() + 3_600_000);
    expect(isTaken(limit, 'a')).toBe(false);
    for (let n = 0; n < 1_000; n++) none.take('a');
  });
});
