import { describe, expect, it } from 'vitest';
import { judgeBunkms } from './check-service.ts';
import { Checkup, checkFree } from './checkup.ts';

const unknown = { date: undefined, certificateEndsMs: undefined, beforeMs: 0, afterMs: 0 };

it('a sealed BunKMS is reported with its own reason and the remedy for it, which is no restart', () => {
  const reportOf = (body: Record<string, unknown>) => {
    const checkup = new Checkup();
    judgeBunkms(checkup, { ...unknown, status: 503, body: { status: 'sealed', ...body } });
    return checkup.findings.map(({ found, remedy }) => `${found}. ${remedy}`);
  };
  const slots = 'no slot opens the sealed ring: other is unavailable';
  expect(reportOf({ sealed: { reason: slots } })).toEqual([
    `BunKMS is sealed: ${slots}. make one of these outside keys work ("bunkms outside check"); BunKMS then unseals by itself`,
  ]);
  const kek =
    'BunKMS is sealed: the KEK does not fit the store. add the KEK of the installation to its ring; BunKMS then unseals by itself';
  expect(reportOf({ sealed: { reason: 'the KEK does not fit the store' } })).toEqual([kek]);
  expect(reportOf({})).toEqual([kek]);
  expect(reportOf({ sealed: { reason: 'a\u001b[2Jb' } })[0]).not.toContain('\u001b');
});

describe('the verdict on a service that is ready', () => {
  const verdictAt = (freeBytes: number) => {
    const checkup = new Checkup();
    checkFree(checkup, '/data', freeBytes);
    judgeBunkms(checkup, { ...unknown, status: 200, body: { status: 'ready' } });
    return checkup.findings.map(({ check, verdict }) => `${check} ${verdict}`);
  };

  it('agrees with that on its disk', () => {
    expect(verdictAt(0)).toEqual(['disk fail', 'ready warn']);
    expect(verdictAt(2_147_483_648)).toEqual(['disk ok', 'ready ok']);
  });
});
