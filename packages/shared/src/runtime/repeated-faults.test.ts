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

it('gives each fault its own minute, whenever the others began', () => {
  take('early');
  vi.advanceTimersByTime(REPEATED_EVERY_MS - 1_000);
  expect([take('late'), take('late')]).toEqual([true, false]);
  vi.advanceTimersByTime(2_000);
  // The minute of the first fault does not end that of the second.
  expect(counts).toEqual([]);
  expect(take('late')).toBe(false);
  expect(take('early')).toBe(true);
  vi.advanceTimersByTime(REPEATED_EVERY_MS - 2_000);
  expect(counts).toEqual([['late', 2]]);
});

it('keeps counting a fault although the report of another fails', () => {
  faults.take('broken', () => {
    throw new Error('no');
  });
  faults.take('broken', () => undefined);
  take('a');
  take('a');
  expect(() => vi.advanceTimersByTime(REPEATED_EVERY_MS)).toThrow('no');
  vi.advanceTimersByTime(0);
  expect(take('a')).toBe(false);
  vi.advanceTimersByTime(REPEATED_EVERY_MS);
  expect(counts).toEqual([
    ['a', 1],
    ['a', 1],
  ]);
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
