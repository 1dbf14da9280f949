import { describe, expect, it } from 'vitest';
import { Checkup, checkClock, checkFree, checkVersions } from './checkup.ts';

const linesOf = (look: (checkup: Checkup) => void) => {
  const checkup = new Checkup();
  look(checkup);
  return checkup.findings.map(({ verdict, found }) => `${verdict}: ${found}`);
};
const T = Date.parse('2026-11-27T18:00:00Z');

describe('a check-up', () => {
  it('says for each finding what to do, and only a failed check makes it fail', () => {
    const checkup = new Checkup();
    checkup.ok('url', 'it answers');
    checkup.warn('disk', 'little room', 'make room');
    expect([checkup.hasFailed, checkup.lines()]).toEqual([
      false,
      ['ok    url   it answers', 'warn  disk  little room. To do: make room'],
    ]);
    checkup.fail('tls', 'none', 'make one');
    expect(checkup.hasFailed).toBe(true);
  });

  it('judges the free space on a disk', () => {
    const MIB = 1_048_576;
    for (const [free, verdict] of [
      [100 * MIB, 'fail'],
      [500 * MIB, 'warn'],
      [5_000 * MIB, 'ok'],
    ] as const)
      expect(linesOf((checkup) => checkFree(checkup, '/data', free))).toEqual([
        `${verdict}: /data has ${free / MIB} MiB free`,
      ]);
  });

  it('does not mistake a slow answer for a difference of clocks', () => {
    const at = (service: string | undefined, beforeMs: number, afterMs: number) =>
      linesOf((checkup) => checkClock(checkup, 'it', { service, beforeMs, afterMs }))[0];
    const service = new Date(T).toUTCString();
    expect(at(service, T - 4_000, T + 900)).toMatch(/^ok/);
    expect(at(service, T + 900, T + 4_000)).toMatch(/^ok/);
    expect(at(service, T + 31_000, T + 31_100)).toBe('warn: it is 30 s behind this machine');
    expect(at(service, T - 90_100, T - 90_000)).toBe('fail: it is 90 s ahead of this machine');
    expect(at(undefined, T, T)).toMatch(/^warn: it sends no date/);
  });

  it('compares versions', () => {
    const at = (version: string | undefined) =>
      linesOf((checkup) =>
        checkVersions(checkup, { name: 'a', version: '1.0.0' }, { name: 'b', version }),
      )[0];
    expect([at('1.0.0'), at('1.1.0'), at(undefined)]).toEqual([
      'ok: a and b are 1.0.0',
      'warn: a is 1.0.0, b is 1.1.0',
      'warn: a is 1.0.0; b does not report its version',
    ]);
  });
});
