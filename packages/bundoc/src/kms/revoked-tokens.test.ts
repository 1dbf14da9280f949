import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { expect, it } from 'vitest';
import { RevokedTokens } from './revoked-tokens.ts';

const DAY_MS = 86_400_000;

it('a revoked token is kept until it would have expired', () => {
  const clock = new FakeClock();
  const revoked = new RevokedTokens(clock);
  revoked.add({ jti: 'a', family: 'a', expires_at: new Date(clock.now() + DAY_MS).toISOString() });
  revoked.add({ jti: 'b', family: 'f' });
  clock.advance(DAY_MS);
  revoked.sweep();
  expect(['a', 'b', 'f', 'c'].map((jti) => revoked.has({ jti }))).toEqual([true, true, true, false]);
  clock.advance(3_600_000);
  revoked.sweep();
  expect([revoked.has({ jti: 'a' }), revoked.size]).toEqual([false, 2]);
  clock.advance(366 * DAY_MS);
  revoked.sweep();
  expect(revoked.size).toBe(0);
});

it('a revoked token is kept when the clock is set forward past its end, and then corrected', () => {
  const clock = new FakeClock();
  const revoked = new RevokedTokens(clock);
  const startMs = clock.now();
  revoked.add({ jti: 'a', family: 'a', expires_at: new Date(startMs + 3_600_000).toISOString() });
  clock.setWall(startMs + 3 * 3_600_000);
  revoked.sweep();
  clock.setWall(startMs);
  expect(revoked.has({ jti: 'a' })).toBe(true);
  clock.advance(2 * 3_600_000);
  revoked.sweep();
  expect(revoked.size).toBe(0);
});

it('a bounded number of tokens is kept, dropping the oldest revocations', () => {
  const revoked = new RevokedTokens(new FakeClock());
  for (let n = 0; n < 100_010; n++) revoked.add({ jti: `t${n}`, family: `t${n}` });
  expect([revoked.size, revoked.has({ jti: 't0' }), revoked.has({ jti: 't100009' })]).toEqual([
    100_000,
    false,
    true,
  ]);
});
