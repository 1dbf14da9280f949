import { beforeEach, expect, it, vi } from 'vitest';
import { OTHER_CLIENTS, REFUSAL_EVERY_MS, REFUSALS_MAX, RefusalLog } from './refusal-log.ts';

let nowMs: number;
let counted: { client: string; kind: string; count: number }[];
let log: RefusalLog;

beforeEach(() => {
  vi.useFakeTimers();
  nowMs = 5_000;
  counted = [];
  const info = (line: unknown) => void counted.push(line as (typeof counted)[number]);
  log = new RefusalLog({ info } as never, { monotonic: () => nowMs });
  return () => vi.useRealTimers();
});

function pass(ms: number): void {
  nowMs += ms;
  vi.advanceTimersByTime(ms);
}

it('gives each client one line a second for each kind of refusal', () => {
  const taken = [0, 1, 2].map(() => log.take('10.0.0.1', 'forbidden'));
  expect(taken).toEqual([true, false, false]);
  expect(log.take('10.0.0.1', 'not_found')).toBe(true);
  expect(log.take('10.0.0.2', 'forbidden')).toBe(true);
});

it('counts the others, and tells their number in one line a second', () => {
  for (let n = 0; n < 10; n++) log.take('10.0.0.1', 'forbidden');
  pass(REFUSAL_EVERY_MS);
  expect(counted).toEqual([{ client: '10.0.0.1', kind: 'forbidden', count: 9 }]);
  for (let n = 0; n < 3; n++) expect(log.take('10.0.0.1', 'forbidden')).toBe(false);
  pass(REFUSAL_EVERY_MS);
  expect(counted).toHaveLength(2);
  expect(counted[1]?.count).toBe(3);
});

it('gives a client a line again that was refused nothing for a second', () => {
  log.take('10.0.0.1', 'forbidden');
  pass(REFUSAL_EVERY_MS);
  expect(log.take('10.0.0.1', 'forbidden')).toBe(true);
  expect(counted).toEqual([]);
});

it('remembers a bounded number of clients; the others share a line a second', () => {
  for (let n = 0; n < REFUSALS_MAX; n++) expect(log.take(`client ${n}`, 'forbidden')).toBe(true);
  const taken = Array.from({ length: 50 }, (_, n) => log.take(`another ${n}`, 'forbidden'));
  expect(taken.filter(Boolean)).toHaveLength(1);
  pass(REFUSAL_EVERY_MS);
  expect(counted).toEqual([{ client: OTHER_CLIENTS, kind: 'forbidden', count: 49 }]);
  // Those that had their line are forgotten by now.
  expect(log.take('client 1', 'forbidden')).toBe(true);
});
