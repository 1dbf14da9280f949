import { AppError } from '@bundoc/shared/contract/app-error';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { beforeEach, describe, expect, it } from 'vitest';
import { OutsideKeys } from './outside-keys.ts';

let clock: FakeClock;
let outside: OutsideKeys;
/** Calls so far that were not refused beforehand. */
let calls: number;
/** Outside keys that do not answer. */
let away: Set<string>;
beforeEach(() => {
  clock = new FakeClock();
  outside = new OutsideKeys(clock);
  calls = 0;
  away = new Set(['acme']);
});

/** Asks for a key, as BunKMS would answer. */
const ask = async (keyName: string, outsideKey = 'acme', retryAfterS = 5): Promise<string> => {
  try {
    await outside.during(keyName, async () => {
      calls++;
      await Promise.resolve();
      if (away.has(outsideKey)) throw new AppError('kms_unavailable', { outsideKey, retryAfterS });
    });
    outside.answered(keyName, outsideKey);
    return 'ok';
  } catch (error) {
    const { code, retryAfterS: afterS } = error as AppError;
    return `${code} ${afterS}`;
  }
};
/** How many of them are asked for. */
const callsOf = async (asked: () => Promise<unknown>) => {
  const before = calls;
  await asked();
  return calls - before;
};

describe('the outside keys of customers', () => {
  it('thousands of projects under a dead one make one call each to learn its name, then one a pause', async () => {
    const names = Array.from({ length: 5_000 }, (_, n) => `p${n}-dek`);
    const askAll = () => Promise.all(names.map((name) => ask(name)));
    expect(await callsOf(askAll)).toBe(5_000);
    for (let pauses = 0; pauses < 10; pauses++) {
      expect(await callsOf(askAll)).toBe(0);
      clock.advance(5_000);
      expect(await callsOf(askAll)).toBe(1);
    }
  });

  it('a pause says when it ends, ends after an answer, and does not concern other outside keys', async () => {
    await ask('a-dek');
    clock.advance(1_500);
    expect(await ask('a-dek')).toBe('kms_unavailable 3.5');
    expect(await ask('b-dek', 'other')).toBe('ok');
    outside.expect('ordinary-dek');
    expect(await callsOf(() => ask('ordinary-dek', 'none'))).toBe(1);
    clock.advance(3_500);
    away.clear();
    expect(await Promise.all([ask('a-dek'), ask('a-dek')])).toEqual(['ok', 'kms_unavailable 2']);
    expect(await Promise.all([ask('a-dek'), ask('a-dek')])).toEqual(['ok', 'ok']);
  });

  it.each([
    [0, 1],
    [3, 3],
    [3_600, 15],
  ])('a pause takes 1 to 15 seconds, whatever is answered: %d s', async (retryAfterS, takesS) => {
    await ask('a-dek', 'acme', retryAfterS);
    expect(await ask('a-dek')).toBe(`kms_unavailable ${takesS}`);
  });

  it('one that denies its use has answered, which ends its pause', async () => {
    await ask('a-dek');
    const denied = new AppError('project_disabled', { outsideKey: 'acme' });
    await expect(outside.during('b-dek', () => Promise.reject(denied))).rejects.toBe(denied);
    expect(await callsOf(() => ask('a-dek'))).toBe(1);
  });

  it('a refusal of another kind tells nothing of it: the next call tries it', async () => {
    await ask('a-dek');
    clock.advance(5_000);
    const limited = new AppError('kms_unavailable', { retryAfterS: 1 });
    await expect(outside.during('a-dek', () => Promise.reject(limited))).rejects.toBe(limited);
    expect(await callsOf(() => ask('a-dek'))).toBe(1);
  });

  it('a call that succeeds after a pause ends it, also one that names no outside key', async () => {
    await ask('a-dek');
    clock.advance(5_000);
    await outside.during('a-dek', () => Promise.resolve());
    expect(await callsOf(() => Promise.all([ask('a-dek'), ask('a-dek')]))).toBe(2);
  });

  it('a key that was changed is asked for in spite of a pause: it may be under another one', async () => {
    await ask('a-dek');
    outside.changed('a-dek');
    expect(await ask('a-dek', 'other')).toBe('ok');
    expect(await ask('a-dek', 'other')).toBe('ok');
    expect(outside.isExpected('a-dek')).toBe(true);
  });

  it('after a gap in the events, all are asked for', async () => {
    await ask('a-dek');
    outside.allChanged();
    expect(await callsOf(() => ask('a-dek'))).toBe(1);
  });
});
