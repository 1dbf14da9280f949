import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { beforeEach, describe, expect, it } from 'vitest';
import type { AuditDraft } from '../records/chain.ts';
import { BoundedRefusals } from './refusals.ts';

const single: AuditDraft = {
  time: 't',
  severity: 'CRITICAL',
  action: 'key.export',
  outcome: 'refused',
  code: 'unauthenticated',
};

describe('refusals', () => {
  let clock: FakeClock;
  let written: AuditDraft[];
  let refusals: BoundedRefusals;

  beforeEach(() => {
    clock = new FakeClock();
    written = [];
    refusals = new BoundedRefusals({ clock, write: (record) => written.push(record) });
  });
  const refuse = (network: string, times: number) => {
    for (let time = 0; time < times; time++) refusals.record({ actor: 'app', jti: network }, single);
  };
  const counts = () =>
    written.flatMap(({ jti, source, detail }) =>
      detail === undefined ? [] : [[jti ?? source, detail['count']]],
    );

  it('are recorded singly up to ten per minute, and then as a count when the minute ends', () => {
    refuse('token-1', 35);
    expect(written).toHaveLength(10);
    clock.advance(59_999);
    refusals.minutes.sweep();
    expect(written).toHaveLength(10);
    clock.advance(1);
    refusals.minutes.sweep();
    expect(written).toHaveLength(11);
    expect(written.at(-1)).toMatchObject({
      severity: 'CRITICAL',
      outcome: 'refused',
      jti: 'token-1',
      detail: { count: 25, since: '2026-01-01T00:00:00.000Z' },
    });
    refusals.minutes.sweep();
    expect(written).toHaveLength(11);
  });

  it('start again with the next minute, even without a sweep in between', () => {
    refuse('token-1', 12);
    clock.advance(60_000);
    refuse('token-1', 1);
    expect(counts()).toEqual([['token-1', 2]]);
    expect(written).toHaveLength(12);
  });

  it('refusals of one token do not use up the single records of another token', () => {
    refuse('token-1', 100);
    refuse('token-2', 3);
    expect(written).toHaveLength(13);
  });

  it('leave no count record when there is nothing to count', () => {
    refuse('token-1', 10);
    clock.advance(60_000);
    refusals.minutes.sweep();
    expect(written).toHaveLength(10);
  });

  it('are all recorded at a shutdown', () => {
    refuse('token-1', 17);
    refuse('token-2', 11);
    refusals.minutes.flush();
    expect(counts()).toEqual([
      ['token-1', 7],
      ['token-2', 1],
    ]);
  });

  it('refusals of more tokens than are counted separately share a count, and none is lost', () => {
    for (let number = 0; number < 1_024; number++) refuse(`10.0.${number >> 8}.${number & 255}`, 1);
    written.length = 0;
    for (let number = 0; number < 500; number++) refuse(`10.9.${number >> 8}.${number & 255}`, 1);
    expect(written).toHaveLength(10);
    refusals.minutes.flush();
    expect(counts()).toEqual([['others', 490]]);
  });

  it('of strangers are recorded for a few networks alone, and for all others together', () => {
    refusals = new BoundedRefusals({ clock, max: 2, write: (record) => written.push(record) });
    for (const source of ['192.0.2.1', '192.0.2.2', '192.0.2.3', '192.0.2.4'])
      for (let time = 0; time < 35; time++) refusals.record({ source }, single);
    expect(written).toHaveLength(30);
    refusals.minutes.flush();
    expect(counts()).toEqual([
      ['192.0.2.1', 25],
      ['192.0.2.2', 25],
      ['others', 60],
    ]);
  });

  it('of one key and code are counted together if that is wanted, for a bounded number of keys', () => {
    refusals = new BoundedRefusals({
      clock,
      max: 2,
      singlyMax: 1,
      byKey: true,
      write: (record) => written.push(record),
    });
    const refused = { ...single, code: 'outside_key_denied' } as const;
    for (const key of ['a', 'b', 'c', 'd'])
      for (let time = 0; time < 5; time++)
        refusals.record({ actor: 'app', jti: 'token-1' }, { ...refused, key });
    expect(written.map(({ key }) => key)).toEqual(['a', 'b', 'c']);
    refusals.minutes.flush();
    expect(written.slice(3).map(({ key, code, detail }) => [key, code, detail?.['count']])).toEqual([
      ['a', 'outside_key_denied', 4],
      ['b', 'outside_key_denied', 4],
      [undefined, undefined, 9],
    ]);
  });

  it('make room for new tokens once the minutes of the old ones have passed', () => {
    for (let number = 0; number < 1_024; number++) refuse(`10.0.${number >> 8}.${number & 255}`, 1);
    clock.advance(60_000);
    written.length = 0;
    refuse('token-1', 3);
    refuse('token-2', 3);
    expect(written).toHaveLength(6);
  });
});
