import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { beforeEach, describe, expect, it } from 'vitest';
import type { AuditDraft } from '../records/chain.ts';
import { StrangerRefusals } from './stranger-refusals.ts';

const single: AuditDraft = {
  time: 't',
  severity: 'CRITICAL',
  action: 'key.export',
  outcome: 'refused',
  code: 'unauthenticated',
};
const addressOf = (number: number) => `10.${number >> 16}.${(number >> 8) & 255}.${number & 255}`;

describe('refusals of strangers', () => {
  let clock: FakeClock;
  let written: AuditDraft[];
  let refusals: StrangerRefusals;

  beforeEach(() => {
    clock = new FakeClock();
    written = [];
    refusals = new StrangerRefusals({ clock, write: (record) => written.push(record) });
  });
  const refuse = (network: string, times: number, more: Partial<AuditDraft> = {}) => {
    for (let time = 0; time < times; time++) refusals.record(network, { ...single, ...more });
  };

  it('are recorded singly up to ten per minute and address, and then as a count when the minute ends', () => {
    refuse('192.0.2.1', 35);
    refuse('192.0.2.2', 3);
    expect(written).toEqual(Array.from({ length: 13 }, () => single));
    clock.advance(59_999);
    refusals.minutes.sweep();
    expect(written).toHaveLength(13);
    clock.advance(1);
    refusals.minutes.sweep();
    expect(written.slice(13)).toEqual([
      {
        time: '2026-01-01T00:01:00.000Z',
        severity: 'CRITICAL',
        action: 'refusals.counted',
        outcome: 'refused',
        source: 'others',
        detail: {
          count: 25,
          since: '2026-01-01T00:00:00.000Z',
          'key.export unauthenticated': 25,
          busiest: '192.0.2.1=25',
        },
      },
    ]);
    refusals.minutes.sweep();
    expect(written).toHaveLength(14);
  });

  it('are recorded singly up to a hundred per minute for all addresses, and the rest in one record', () => {
    for (let number = 0; number < 1_500; number++) refuse(addressOf(number), number < 1_000 ? 6 : 8);
    expect(written).toHaveLength(100);
    refusals.minutes.flush();
    expect(written).toHaveLength(101);
    expect(written[100]?.detail).toMatchObject({ count: 9_900, 'key.export unauthenticated': 9_900 });
  });

  it('are counted by action and code, and for the twenty busiest addresses, the busiest first', () => {
    refuse('192.0.2.254', 100);
    for (let number = 1; number <= 30; number++) refuse(addressOf(number), 100 + number);
    refuse('192.0.2.254', 7, { action: 'key.encrypt', severity: 'INFO', code: 'not_found' });
    refusals.minutes.flush();
    const { count, busiest, ...reasons } = written.at(-1)?.detail ?? {};
    expect(count).toBe(30 * 100 + (30 * 31) / 2 + 107 - 100);
    expect(reasons).toMatchObject({
      'key.export unauthenticated': Number(count) - 7,
      'key.encrypt not_found': 7,
    });
    const named = String(busiest).split(', ');
    expect(named).toHaveLength(20);
    expect(named[0]).toBe(`${addressOf(30)}=130`);
    expect(named).not.toContain(`${addressOf(1)}=101`);
  });

  it('name the busiest address even among more addresses than are counted separately', () => {
    for (let number = 0; number < 20_000; number++) {
      refuse(addressOf(number), 1);
      refuse('192.0.2.1', 1);
    }
    refusals.minutes.flush();
    expect(String(written.at(-1)?.detail?.['busiest'])).toMatch(/^192\.0\.2\.1=\d+/);
  });

  it('refusals of strangers of one kind leave room for single records of another kind', () => {
    for (let number = 0; number < 200; number++) refusals.record(addressOf(number), single, 50);
    expect(written).toHaveLength(50);
    for (let number = 0; number < 200; number++) refuse(addressOf(number), 1);
    expect(written).toHaveLength(100);
  });

  it('start again with the next minute, even without a sweep in between', () => {
    refuse('192.0.2.1', 12);
    clock.advance(60_000);
    refuse('192.0.2.1', 1);
    expect(written).toHaveLength(12);
    expect(written[10]?.detail).toMatchObject({ count: 2 });
  });

  it('leave no count record when there is nothing to count', () => {
    refuse('192.0.2.1', 10);
    refusals.minutes.flush();
    refusals.minutes.flush();
    expect(written).toHaveLength(10);
  });
});
