import { Writable } from 'node:stream';
import { createLogger } from '@bundoc/shared/logs/logger';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { describe, expect, it } from 'vitest';
import { ClockSkew } from './clock-skew.ts';

const HOUR_MS = 3_600_000;

function start() {
  const clock = new FakeClock();
  const lines: Record<string, unknown>[] = [];
  const destination = new Writable({
    write(chunk: Buffer, _encoding, done) {
      lines.push(JSON.parse(chunk.toString()));
      done();
    },
  });
  const skew = new ClockSkew({
    clock,
    logger: createLogger({ service: 'bundoc', level: 'info', destination }),
  });
  /** An answer that takes some time, and is dated at its end by a clock that differs from the own one. */
  const answer = (aheadMs: number, { tookMs = 20, headers = {} } = {}) => {
    const take = skew.begin();
    clock.advance(tookMs);
    take({ date: new Date(clock.now() + aheadMs).toUTCString(), ...headers });
  };
  /** As the service does: it asks for the report every second. */
  const wait = (seconds: number) => {
    for (let n = 0; n < seconds; n++) {
      clock.advance(1_000);
      skew.report();
    }
  };
  const warnings = () => lines.filter(({ level }) => level === 'warn');
  return { clock, skew, lines, warnings, answer, wait };
}

describe('ClockSkew', () => {
  it.each([
    [2 * HOUR_MS, 7_200, "that of BunKMS is 7200 s ahead of Bundoc's"],
    [-2 * HOUR_MS, -7_199, "that of BunKMS is 7199 s behind Bundoc's"],
    [60_000, 60, "that of BunKMS is 60 s ahead of Bundoc's"],
  ])('warns with the first answer, and every minute while it lasts: %i ms', (aheadMs, skewS, text) => {
    const { skew, warnings, answer, wait } = start();
    answer(aheadMs);
    expect(warnings()).toHaveLength(1);
    expect(warnings()[0]?.['msg']).toContain(text);
    expect(Math.abs(Number(warnings()[0]?.['skewS']) - skewS)).toBeLessThanOrEqual(1);
    expect(Math.abs(Number(skew.seconds) - skewS)).toBeLessThanOrEqual(1.1);
    wait(59);
    expect(warnings()).toHaveLength(1);
    wait(1);
    expect(warnings()).toHaveLength(2);
    wait(240);
    expect(warnings()).toHaveLength(6);
  });

  it.each([
    ['clocks that agree', 0, 20],
    ['an answer that took 4 seconds', 0, 4_000],
    ['an answer that took an hour', 0, HOUR_MS],
    ['20 seconds', 20_000, 20],
    ['20 seconds behind', -20_000, 20],
  ])('does not warn of %s', (_what, aheadMs, tookMs) => {
    const { skew, lines, answer, wait } = start();
    answer(aheadMs, { tookMs });
    wait(120);
    expect(lines).toEqual([]);
    expect(Math.abs(Number(skew.seconds))).toBeLessThanOrEqual(Math.abs(aheadMs) / 1_000);
  });

  it('does not take the time in which an answer came for a skew, whenever in it the answer was dated', () => {
    const { clock, skew, lines } = start();
    for (const datedAfterMs of [0, 1_000, 45_000, 89_000]) {
      const take = skew.begin();
      const date = new Date(clock.now() + datedAfterMs).toUTCString();
      clock.advance(90_000);
      take({ date });
      expect(skew.seconds).toBeCloseTo(0);
    }
    expect(lines).toEqual([]);
  });

  it('tells of the end once, at most a minute after it', () => {
    const { skew, lines, answer, wait } = start();
    answer(HOUR_MS);
    wait(61);
    answer(0);
    wait(61);
    answer(0);
    expect(skew.seconds).toBe(0);
    expect(lines.map(({ msg }) => String(msg).split(':')[0])).toEqual([
      'the clocks of Bundoc and BunKMS differ',
      'the clocks of Bundoc and BunKMS differ',
      'the clocks of Bundoc and BunKMS agree again',
    ]);
  });

  it('shows the largest skew of a minute, if one of several nodes of BunKMS has the wrong clock', () => {
    const { skew, warnings, answer, wait } = start();
    for (let n = 0; n < 120; n++) {
      answer(n % 10 === 0 ? -HOUR_MS : 0);
      expect(skew.seconds).toBeLessThan(-3_500);
      wait(1);
    }
    expect(warnings()).toHaveLength(3);
  });

  it('has no figure before the first answer, and none once BunKMS has been away for ten minutes', () => {
    const { skew, warnings, answer, wait } = start();
    wait(120);
    expect(skew.seconds).toBeUndefined();
    answer(HOUR_MS);
    wait(600);
    expect(skew.seconds).toBeDefined();
    const { length } = warnings();
    wait(120);
    expect(skew.seconds).toBeUndefined();
    expect(warnings()).toHaveLength(length);
  });

  it('forgets the figure when the own clock is set, until the next answer', () => {
    const { clock, skew, warnings, answer, wait } = start();
    answer(0);
    clock.setWall(clock.now() - 2 * HOUR_MS);
    expect(skew.seconds).toBeUndefined();
    answer(2 * HOUR_MS);
    expect(skew.seconds).toBeGreaterThan(7_100);
    clock.setWall(clock.now() + 2 * HOUR_MS);
    wait(300);
    expect(skew.seconds).toBeUndefined();
    answer(0);
    expect(skew.seconds).toBe(0);
    expect(warnings()).toHaveLength(1);
  });

  it('measures by the clock that is in force, if it was set while an answer came', () => {
    const { clock, skew } = start();
    const take = skew.begin();
    const date = new Date(clock.now()).toUTCString();
    clock.setWall(clock.now() - HOUR_MS);
    clock.advance(20);
    take({ date });
    expect(skew.seconds).toBeGreaterThan(3_590);
  });

  it.each([
    ['comes from a cache', { age: '7200' }],
    ['has no date', { date: undefined }],
    ['has two dates', { date: ['Thu, 01 Jan 2026 00:00:00 GMT', 'Thu, 01 Jan 2026 02:00:00 GMT'] }],
    ['has a date that is none', { date: 'yesterday' }],
  ])('ignores an answer that %s', (_what, headers) => {
    const { skew, lines, answer } = start();
    answer(-HOUR_MS, { headers });
    expect([skew.seconds, lines]).toEqual([undefined, []]);
  });
});
