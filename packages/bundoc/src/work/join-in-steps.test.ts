import { expect, it } from 'vitest';
import { joinInSteps } from './join-in-steps.ts';
import { Scheduler } from './scheduler.ts';

it('joinInSteps joins parts in order, and yields after each MiB', async () => {
  let nowMs = 0;
  // Each step takes a whole slice.
  const scheduler = new Scheduler({
    nowMs: () => {
      nowMs += 2;
      return nowMs;
    },
  });
  using work = scheduler.work({ subject: 's', project: 'p' }, 'query');
  const parts = ['[', ...Array.from({ length: 16 }, (_, n) => Buffer.alloc(524_288, n)), ']'];
  const expected = Buffer.concat(parts.map((part) => Buffer.from(part)));
  expect((await joinInSteps(parts, work)).equals(expected)).toBe(true);
  expect(scheduler.slices).toBe(8);
  expect(parts.slice(1, -1).every(({ length }) => length === 0)).toBe(true);
});
