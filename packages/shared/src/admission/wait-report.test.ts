import { expect, it } from 'vitest';
import { FakeClock } from '../testing/fake-clock.ts';
import { createGate, HEAVY, PLACES } from './gate.ts';
import { reportWaits } from './wait-report.ts';

const keyOf = (project: string) => ({ subject: 's', project });

function start() {
  const clock = new FakeClock();
  const gate = createGate(clock, 1_000);
  const lines: unknown[] = [];
  const logger = { info: (...line: unknown[]) => void lines.push(line) };
  const report = reportWaits(gate, { clock, logger });
  return { clock, gate, lines, report };
}

it('a line a minute names projects that waited long, the longest first, with what they hold and used', async () => {
  const { clock, gate, lines, report } = start();
  const all = gate.places.charge(keyOf('busy'), PLACES * 2);
  const waits = Array.from({ length: 7 }, (_, n) => gate.places.take(keyOf(`p${n}`), HEAVY));
  clock.advance(99);
  using bytes = gate.bytes.charge(keyOf('p6'), 300);
  const last = gate.places.take(keyOf('p6'), HEAVY);
  clock.advance(1);
  all[Symbol.dispose]();
  const holds = await Promise.all([...waits, last]);
  gate.accounts.charge(gate.accounts.of(keyOf('p6')), 5_000);
  clock.advance(60_000);
  report.sweep();
  const [[line, text]] = lines as [[{ most: readonly Record<string, unknown>[] }, string]];
  expect(text).toBe('waited at the gate');
  expect(line.most).toHaveLength(5);
  expect(line.most[0]).toEqual({
    subject: 's',
    project: 'p0',
    waits: 1,
    longestMs: 100,
    usedMs: 0,
    places: HEAVY,
    bytes: 0,
  });
  clock.advance(60_000);
  report.sweep();
  expect(lines).toHaveLength(1);
  for (const hold of holds) hold[Symbol.dispose]();
  expect(bytes.units).toBe(300);
});

it('projects with short waits are not logged', async () => {
  const { clock, gate, lines, report } = start();
  const all = gate.places.charge(keyOf('busy'), PLACES * 2);
  const wait = gate.places.take(keyOf('p'), HEAVY);
  clock.advance(50);
  all[Symbol.dispose]();
  (await wait)[Symbol.dispose]();
  clock.advance(60_000);
  report.sweep();
  expect(lines).toEqual([]);
});
