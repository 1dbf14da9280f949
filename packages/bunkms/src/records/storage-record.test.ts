import { TAKEN_OVER_MS_MAX } from '@bundoc/shared/contract/take-over-time';
import { expect, it } from 'vitest';
import { takeOverTime } from './storage-record.ts';

it('the time of a take-over is later than the former one, even if the clock was set back', () => {
  expect(takeOverTime(3, 1_000)).toBe(1_000);
  expect(takeOverTime(1_000, 3)).toBeGreaterThan(1_000);
  // A later one would be refused by every Bundoc, for good.
  expect(takeOverTime(0, Number.MAX_SAFE_INTEGER)).toBe(TAKEN_OVER_MS_MAX);
});
