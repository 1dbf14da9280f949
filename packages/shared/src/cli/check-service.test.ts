import { describe, expect, it } from 'vitest';
import { judgeBunkms } from './check-service.ts';
import { Checkup, checkFree } from './checkup.ts';

describe('the verdict on a service that is ready', () => {
  const verdictAt = (freeBytes: number) => {
    const checkup = new Checkup();
    checkFree(checkup, '/data', freeBytes);
    const unknown = { date: undefined, certificateEndsMs: undefined, beforeMs: 0, afterMs: 0 };
    judgeBunkms(checkup, { ...unknown, status: 200, body: { status: 'ready' } });
    return checkup.findings.map(({ check, verdict }) => `${check} ${verdict}`);
  };

  it('agrees with that on its disk', () => {
    expect(verdictAt(0)).toEqual(['disk fail', 'ready warn']);
    expect(verdictAt(2_147_483_648)).toEqual(['disk ok', 'ready ok']);
  });
});
