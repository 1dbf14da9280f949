import { beforeEach, expect, it, vi } from 'vitest';
import { FAULTS_MAX, REPEATED_EVERY_MS, RepeatedFaults } from './repeated-faults.ts';

let counts: [fault: string, count: number][];
let faults: RepeatedFaults;
const take = (fault: string) => faults.take(fault, (count) => counts.push([fault, count]));

beforeEach(() => {
  vi.useFakeTimers();
  counts = [];
  faults = new RepeatedFaults();
  return () => vi.useRealTimers();
});

it('logs a fault once and counts its repetitions each minute', () => {
  expect([take('a'), take('a'), take('b'), take('a')]).toEqual([true, false, true, false]);
  vi.advanceTimersByTime(REPEATED_EVERY_MS);
  expect(counts).toEqual([['a', 2]]);
  expect(take('a')).toBe(false);
  vi.advanceTimersByTime(REPEATED_EVERY_MS);
  expect(counts).toEqual([
    ['a', 2],
    ['a', 1],
  ]);
});

it('logs a fault again after a minute without repetitions, and keeps no timer while idle', () => {
  take('a');
  vi.advanceTimersByTime(REPEATED_EVERY_MS);
  expect(vi.getTimerCount()).toBe(0);
  expect(take('a')).toBe(true);
  expect(counts).toEqual([]);
});

it('writes its counts when it is flushed, each repetition once', () => {
  for (let n = 0; n < 5; n++) take('a');
  faults.flush();
  faults.flush();
  expect(counts).toEqual([['a', 4]]);
});

it('tracks a limited number of faults and loses no count', () => {
  take('first');
  take('first');
  for (let n = 0; n < FAULTS_MAX; n++) expect(take(`another ${n}`)).toBe(true);
  expect(counts).toEqual([['first', 1]]);
  expect(take('first')).toBe(true);
});
