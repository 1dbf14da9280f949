import { afterEach, describe, expect, it, vi } from 'vitest';
import { Checkup, checkClock, checkFree, checkVersions } from './checkup.ts';

const linesOf = (look: (checkup: Checkup) => void) => {
  const checkup = new Checkup();
  look(checkup);
  return checkup.findings.map(({ verdict, found }) => `${verdict}: ${found}`);
};
const T = Date.parse('2026-11-27T18:00:00Z');

describe('a check-up', () => {
  afterEach(() => vi.restoreAllMocks());

  it('says for each finding what to do, and only a failed check makes it fail', () => {
    const checkup = new Checkup();
    checkup.ok('url', 'it answers');
    checkup.warn('disk', 'little room', 'make room');
    expect(checkup.lines()).toEqual(['ok    url   it answers', 'warn  disk  little room. To do: make room']);
    vi.spyOn(console, 'log').mockReturnValue();
    expect(() => checkup.print({})).not.toThrow();
    checkup.fail('tls', 'none', 'make one');
    expect(() => checkup.print({})).toThrow(/some checks failed/);
  });

  const MIB = 1_048_576;
  it.each([
    ['fail: /data has 100 MiB free', (checkup) => checkFree(checkup, '/data', 100 * MIB)],
    ['warn: /data has 500 MiB free', (checkup) => checkFree(checkup, '/data', 500 * MIB)],
    ['ok: /data has 5000 MiB free', (checkup) => checkFree(checkup, '/data', 5_000 * MIB)],
    ['ok: this command and it are 1.0.0', (checkup) => checkVersions(checkup, '1.0.0', 'it', '1.0.0')],
    ['warn: this command is 1.0.0, it is 1.1.0', (checkup) => checkVersions(checkup, '1.0.0', 'it', '1.1.0')],
    [
      'warn: this command is 1.0.0, it does not report its version',
      (checkup) => checkVersions(checkup, '1.0.0', 'it', undefined),
    ],
  ] as [string, (checkup: Checkup) => void][])('finds %s', (finding, look) => {
    expect(linesOf(look)).toEqual([finding]);
  });

  // A slow answer is no difference of clocks.
  it.each([
    [-4_000, 900, 'ok: it and this machine agree'],
    [900, 4_000, 'ok: it and this machine agree'],
    [31_000, 31_100, 'warn: it is 30 s behind this machine'],
    [-90_100, -90_000, 'fail: it is 90 s ahead of this machine'],
  ])('compares a clock with what was %i ms before and %i ms after it: %s', (before, after, finding) => {
    const dates = { date: new Date(T).toUTCString(), beforeMs: T + before, afterMs: T + after };
    expect(linesOf((checkup) => checkClock(checkup, 'it', dates))).toEqual([finding]);
  });

  it('warns of a service that sends no date', () => {
    const dates = { date: undefined, beforeMs: T, afterMs: T };
    expect(linesOf((checkup) => checkClock(checkup, 'it', dates))).toEqual(['warn: it sends no date']);
  });
});
