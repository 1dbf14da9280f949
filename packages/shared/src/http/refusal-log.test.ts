import { beforeEach, expect, it, vi } from 'vitest';
import { OTHER_CLIENTS, PROJECTS_MAX, REFUSAL_EVERY_MS, REFUSALS_MAX, RefusalLog } from './refusal-log.ts';

let nowMs: number;
let counted: { level: string; client: string; kind: string; count: number }[];
let log: RefusalLog;

beforeEach(() => {
  vi.useFakeTimers();
  nowMs = 5_000;
  counted = [];
  const at = (level: string) => (line: object) =>
    void counted.push({ level, ...line } as (typeof counted)[number]);
  log = new RefusalLog({ info: at('info'), error: at('error') } as never, { monotonic: () => nowMs });
  return () => vi.useRealTimers();
});

function pass(ms: number): void {
  nowMs += ms;
  vi.advanceTimersByTime(ms);
}

it('logs one line per minute for each client and kind of refusal', () => {
  const taken = [0, 1, 2].map(() => log.take('10.0.0.1', 'forbidden', 'info'));
  expect(taken).toEqual([{}, undefined, undefined]);
  expect(log.take('10.0.0.1', 'not_found', 'info')).toEqual({});
  expect(log.take('10.0.0.2', 'forbidden', 'info')).toEqual({});
});

it('logs one line per minute for a client that is always refused, with the number of other refusals', () => {
  const lines: object[] = [];
  for (let n = 0; n < 50; n++) {
    const before = log.take('10.0.0.1', 'forbidden', 'error');
    if (before !== undefined) lines.push(before);
    pass(REFUSAL_EVERY_MS / 10);
  }
  expect(lines).toEqual([{}, ...Array(4).fill({ count: 9 })]);
  expect(counted).toEqual([]);
});

it('logs the number in a separate line when no refusal follows, at the level of the kind', () => {
  for (const level of ['info', 'error'] as const)
    for (let n = 0; n < 10; n++) log.take('10.0.0.1', `at ${level}`, level);
  pass(2 * REFUSAL_EVERY_MS);
  expect(counted).toEqual(
    ['info', 'error'].map((level) => ({ level, client: '10.0.0.1', kind: `at ${level}`, count: 9 })),
  );
  // That was this minute's line.
  expect(log.take('10.0.0.1', 'at info', 'info')).toBeUndefined();
  pass(REFUSAL_EVERY_MS);
  expect(log.take('10.0.0.1', 'at info', 'info')).toEqual({ count: 1 });
});

it('writes all counts when it closes', () => {
  for (let n = 0; n < 3; n++) log.take('10.0.0.1', 'internal_error', 'error');
  log.close();
  expect(counted).toEqual([{ level: 'error', client: '10.0.0.1', kind: 'internal_error', count: 2 }]);
});

it('logs a line again for a client without refusals for a minute', () => {
  log.take('10.0.0.1', 'forbidden', 'info');
  pass(REFUSAL_EVERY_MS);
  expect(log.take('10.0.0.1', 'forbidden', 'info')).toEqual({});
  expect(counted).toEqual([]);
});

it('tracks a limited number of clients; all others share one line per minute', () => {
  for (let n = 0; n < REFUSALS_MAX; n++) expect(log.take(`client ${n}`, 'forbidden', 'info')).toEqual({});
  const taken = Array.from({ length: 50 }, (_, n) => log.take(`another ${n}`, 'forbidden', 'info'));
  expect(taken.filter((before) => before !== undefined)).toEqual([{ client: OTHER_CLIENTS }]);
  pass(2 * REFUSAL_EVERY_MS);
  expect(counted).toEqual([{ level: 'info', client: OTHER_CLIENTS, kind: 'forbidden', count: 49 }]);
  // Clients that had their line are forgotten by now.
  expect(log.take('client 1', 'forbidden', 'info')).toEqual({});
});

it('names the projects of the refusals that were only counted, a bounded number, and forgets them with the line', () => {
  const take = (project: string) => log.take('root', 'rate_limited', 'info', project);
  expect(take('a')).toEqual({});
  for (const project of ['b', 'a', 'b']) take(project);
  pass(REFUSAL_EVERY_MS);
  expect(take('c')).toEqual({ count: 3, projects: ['b', 'a'] });
  for (let n = 0; n < 50; n++) take(`p${n}`);
  pass(2 * REFUSAL_EVERY_MS);
  const projects = Array.from({ length: PROJECTS_MAX }, (_, n) => `p${n}`);
  expect(counted).toEqual([{ level: 'info', client: 'root', kind: 'rate_limited', count: 50, projects }]);
});
