import { Checkup, checkFree } from '@bundoc/shared/cli/checkup';
import { expect, it } from 'vitest';
import { judgeBundoc } from './doctor.ts';

it('the verdict on a Bundoc that is ready agrees with that on its disk', () => {
  const verdictsAt = (freeBytes: number) => {
    const checkup = new Checkup();
    checkFree(checkup, '/data', freeBytes);
    const body = { status: 'ready', kms: 'up', kms_events: 'live' };
    const unknown = { date: undefined, certificateEndsMs: undefined, beforeMs: 0, afterMs: 0 };
    judgeBundoc(checkup, { ...unknown, status: 200, body });
    return checkup.findings.map(({ check, verdict }) => `${check} ${verdict}`);
  };
  expect(verdictsAt(0)).toEqual(['disk fail', 'ready warn', 'kms ok']);
  expect(verdictsAt(2_147_483_648)).toEqual(['disk ok', 'ready ok', 'kms ok']);
});
