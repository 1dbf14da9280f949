import { beforeEach, expect, it, vi } from 'vitest';
import { type Counted, CountedLines, EXAMPLES_MAX } from './counted-lines.ts';
import { MINUTE_MS } from './minutes.ts';

const MAX = 100;
let alone: [owner: string, name: string, Counted][];
let lines: CountedLines;
const take = (owner: string, name: string, example?: string) =>
  lines.take(owner, name, (counted) => alone.push([owner, name, counted]), example);

beforeEach(() => {
  vi.useFakeTimers();
  alone = [];
  lines = new CountedLines({ max: MAX });
  return () => vi.useRealTimers();
});

it('has one line a minute for each owner and name', () => {
  expect([0, 1, 2].map(() => take('a', 'forbidden'))).toEqual([{}, undefined, undefined]);
  expect(take('a', 'not_found')).toEqual({});
  expect(take('b', 'forbidden')).toEqual({});
});

it('has one line a minute for events that do not end, with the number of other events', () => {
  const taken: Counted[] = [];
  for (let n = 0; n < 50; n++) {
    const counted = take('a', 'forbidden');
    if (counted !== undefined) taken.push(counted);
    vi.advanceTimersByTime(MINUTE_MS / 10);
  }
  expect(taken).toEqual([{}, ...Array(4).fill({ count: 9 })]);
  expect(alone).toEqual([]);
});

it('has a separate line with the number when no event follows within another minute', () => {
  for (let n = 0; n < 10; n++) take('a', 'forbidden');
  vi.advanceTimersByTime(2 * MINUTE_MS - 1);
  expect(alone).toEqual([]);
  vi.advanceTimersByTime(1);
  expect(alone).toEqual([['a', 'forbidden', { count: 9 }]]);
  // That was the line of this minute.
  expect(take('a', 'forbidden')).toBeUndefined();
  vi.advanceTimersByTime(MINUTE_MS);
  expect(take('a', 'forbidden')).toEqual({ count: 1 });
});

it('has a line again after a minute without events, and keeps no timer while idle', () => {
  take('a', 'forbidden');
  vi.advanceTimersByTime(MINUTE_MS);
  expect(vi.getTimerCount()).toBe(0);
  expect(take('a', 'forbidden')).toEqual({});
  expect(alone).toEqual([]);
});

it('writes an event, or counts it', () => {
  const written: Counted[] = [];
  for (let n = 0; n < 5; n++) lines.say('a', 'x', (counted) => written.push(counted));
  expect(written).toEqual([{}]);
  vi.advanceTimersByTime(MINUTE_MS);
  lines.say('a', 'x', (counted) => written.push(counted));
  expect(written).toEqual([{}, { count: 4 }]);
});

it('writes each count once when it is flushed or closes', () => {
  for (let n = 0; n < 3; n++) take('a', 'forbidden');
  lines.flush();
  lines.flush();
  for (let n = 0; n < 4; n++) take('b', 'forbidden');
  lines[Symbol.dispose]();
  expect(alone).toEqual([
    ['a', 'forbidden', { count: 2 }],
    ['b', 'forbidden', { count: 3 }],
  ]);
});

it('knows a limited number of owners; all others share one line a minute', () => {
  for (let n = 0; n < MAX; n++) expect(take(`client ${n}`, 'forbidden')).toEqual({});
  const taken = Array.from({ length: 50 }, (_, n) => take(`another ${n}`, 'forbidden'));
  expect(taken.filter((counted) => counted !== undefined)).toEqual([{ owner: 'others' }]);
  vi.advanceTimersByTime(2 * MINUTE_MS);
  expect(alone.map(([, , counted]) => counted)).toEqual([{ count: 49, owner: 'others' }]);
  // Owners that had their line are forgotten by now.
  expect(take('client 1', 'forbidden')).toEqual({});
});

it('has a bounded number of examples of counted events, and forgets them with the line', () => {
  expect(take('a', 'x', '1')).toEqual({});
  for (const example of ['2', '1', '2']) take('a', 'x', example);
  vi.advanceTimersByTime(MINUTE_MS);
  expect(take('a', 'x', '3')).toEqual({ count: 3, examples: ['2', '1'] });
  for (let n = 0; n < 50; n++) take('a', 'x', `p${n}`);
  vi.advanceTimersByTime(2 * MINUTE_MS);
  const examples = Array.from({ length: EXAMPLES_MAX }, (_, n) => `p${n}`);
  expect(alone).toEqual([['a', 'x', { count: 50, examples }]]);
});
