import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { FakeClock } from '../testing/fake-clock.ts';
import { createGate, HEAVY, PLACES } from './gate.ts';
import { type Hold, Pool, type PoolOptions, WAIT_MS_MAX } from './pool.ts';

const keyOf = (subject: number, project = 0) => ({ subject: `s${subject}`, project: `p${project}` });

/** A pool, by default that of the places at the gate, with those who hold some, the first one first. */
function start(options?: Partial<PoolOptions>) {
  const clock = new FakeClock();
  const pool =
    options === undefined
      ? createGate(clock, 1).places
      : new Pool({ name: 'units', capacity: 8, clock, ...options });
  const inside: { readonly name: string; readonly hold: Hold }[] = [];
  const enter = (subject: number, units = 1, project = 0): Promise<void> | undefined => {
    const key = keyOf(subject, project);
    const name = `${key.subject} ${key.project}`;
    const hold = pool.tryTake(key, units);
    if (hold === undefined)
      return pool.take(key, units).then((later) => void inside.push({ name, hold: later }));
    inside.push({ name, hold });
    return undefined;
  };
  const leave = (at = 0) => inside.splice(at, 1)[0]?.hold[Symbol.dispose]();
  const countOf = (subject: string) => inside.filter(({ name }) => name.startsWith(`${subject} `)).length;
  const fill = (subject = 1) => {
    const units = options === undefined ? HEAVY : 1;
    for (let n = 0; n < pool.capacity; n += units) expect(enter(subject, units)).toBeUndefined();
  };
  const waitOver = () => {
    clock.advance(WAIT_MS_MAX);
    pool.sweep();
  };
  return { pool, clock, inside, enter, leave, countOf, fill, waitOver };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe('the places at the gate', () => {
  it('may all be held by a lone subject, whose further requests wait', async () => {
    const { pool, enter, leave, fill } = start();
    fill();
    const waits = enter(1, HEAVY);
    expect([pool.held, pool.waiting]).toEqual([PLACES, 1]);
    leave();
    await waits;
    expect([pool.held, pool.waiting]).toEqual([PLACES, 0]);
  });

  it('are granted to a later subject up to its equal part, even when all are taken', async () => {
    const { enter, countOf, fill } = start();
    fill();
    for (let n = 0; n < PLACES; n++) void enter(2, HEAVY)?.catch(() => undefined);
    expect(countOf('s2')).toBe(PLACES / 2 / HEAVY);
    await enter(3, HEAVY);
  });

  it('are granted to a later project of the same subject up to its part, with some left for other subjects', async () => {
    const { pool, inside, enter, fill } = start();
    fill();
    for (let project = 1; project < 400; project++) void enter(1, HEAVY, project)?.catch(() => undefined);
    expect(pool.held).toBe(PLACES * 1.5);
    await enter(2, HEAVY);
    expect(inside.filter(({ name }) => name === 's1 p1')).toHaveLength(1);
  });

  it('places for single documents are free even when queries of the same project hold all others', () => {
    const { pool, enter, fill } = start();
    fill();
    for (let n = 0; n < PLACES / 4; n++) expect(enter(1)).toBeUndefined();
    void enter(1)?.catch(() => undefined);
    expect([pool.held, pool.waiting]).toEqual([PLACES * 1.25, 1]);
  });

  it('are at most three times the capacity, are not free while someone waits, and are all given back', async () => {
    const step = fc.record({
      subject: fc.nat(6),
      project: fc.nat(3),
      isHeavy: fc.boolean(),
      enters: fc.boolean(),
      count: fc.integer({ min: 1, max: 90 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const { pool, inside, enter, leave } = start();
        const waits: Promise<void>[] = [];
        for (const { subject, project, isHeavy, enters, count } of steps) {
          for (let n = 0; n < count; n++) {
            const wait = enters ? enter(subject, isHeavy ? HEAVY : 1, project) : undefined;
            if (wait !== undefined) waits.push(wait);
            if (!enters) leave(Math.floor(inside.length / 2));
            await Promise.resolve();
            expect(pool.held).toBeLessThanOrEqual(3 * PLACES);
            if (pool.waiting > 0) expect(pool.held).toBeGreaterThan(PLACES - HEAVY);
          }
        }
        while (inside.length > 0) {
          leave();
          await Promise.resolve();
          await Promise.resolve();
        }
        await Promise.all(waits);
        expect([pool.held, pool.waiting, pool.subjects]).toEqual([0, 0, 0]);
      }),
      { numRuns: 60 },
    );
  });
});

describe('the bytes at the gate', () => {
  const MIB = 1_048_576;

  it('are free for a small and a large body of another subject when one subject has taken all it can', () => {
    const { bytes } = createGate(new FakeClock(), 128 * MIB);
    for (let project = 0; project < 30; project++) bytes.tryTake(keyOf(1, project), 16 * MIB);
    for (let project = 0; project < 3_000; project++) bytes.tryTake(keyOf(1, project), 65_536);
    expect(bytes.held).toBeLessThanOrEqual(144 * MIB);
    expect(bytes.tryTake(keyOf(2), 100)).toBeDefined();
    expect(bytes.tryTakeMore(keyOf(2), 15 * MIB)).toBeDefined();
  });

  it('are free for small requests of each subject within its part, even when others hold all', () => {
    const { bytes, places } = createGate(new FakeClock(), 128 * MIB);
    for (let subject = 0; subject < 20; subject++) bytes.charge(keyOf(subject), 16 * MIB);
    expect(bytes.tryTake(keyOf(99), 100)).toBeDefined();
    for (let subject = 0; subject < 4; subject++) places.charge(keyOf(subject), 3 * PLACES);
    expect(places.tryTake(keyOf(99), 1)).toBeDefined();
  });

  it('bytes for small requests are at most the capacity for all subjects together', () => {
    const { bytes } = createGate(new FakeClock(), 64 * MIB);
    bytes.charge(keyOf(0), 64 * MIB);
    for (let n = 0; n < 5_000; n++) bytes.tryTake(keyOf(1 + (n % 4_000)), 65_536);
    expect(bytes.held).toBeLessThanOrEqual(2 * 64 * MIB);
  });

  it('put no account into debt for processor time while a request waits for them', () => {
    const { bytes, accounts } = createGate(new FakeClock(), 64 * MIB);
    bytes.charge(keyOf(1), 80 * MIB);
    void bytes.take(keyOf(1), MIB).catch(() => undefined);
    expect([bytes.waiting, accounts.all.waiting]).toEqual([1, 0]);
  });
});

describe('a pool', () => {
  it('serves the subject that has used least, there the project that has used least, there the first', async () => {
    const { pool, inside, enter, leave, fill } = start({ capacity: 4 });
    fill(9);
    const waits = [enter(1, 1, 1), enter(1, 1, 2), enter(1, 1, 2), enter(2)].map(async (wait) => wait);
    pool.accounts.charge(pool.accounts.of(keyOf(1, 1)), 900);
    pool.accounts.charge(pool.accounts.of(keyOf(2)), 300);
    for (let n = 0; n < 4; n++) {
      leave();
      await vi.advanceTimersByTimeAsync(0);
    }
    await Promise.all(waits);
    expect(inside.map(({ name }) => name)).toEqual(['s2 p0', 's1 p2', 's1 p2', 's1 p1']);
  });

  it('does not give small requests the units that a large one waits for', async () => {
    const { inside, enter, leave, fill } = start({ capacity: 8 });
    fill();
    const large = enter(1, 4);
    const small = enter(1);
    for (let n = 0; n < 3; n++) leave();
    expect(inside).toHaveLength(5);
    leave();
    await large;
    leave();
    await small;
  });

  it('has further units for small requests, even when a large one of their project waits before them', async () => {
    const { pool, enter, leave } = start({ capacity: 8, extra: 2, smallMax: 1 });
    for (let n = 0; n < 2; n++) void enter(1, 4);
    const large = enter(1, 4);
    for (let n = 0; n < 2; n++) await enter(1);
    const small = enter(1);
    expect([pool.held, pool.waiting]).toEqual([10, 2]);
    leave();
    await large;
    expect([pool.held, pool.waiting]).toEqual([10, 1]);
    leave();
    await small;
  });

  it('admits a large request even if small ones come all the time', async () => {
    const { pool, inside, enter, leave } = start({ capacity: 8, extra: 2, smallMax: 1 });
    for (let n = 0; n < 10; n++) expect(enter(1)).toBeUndefined();
    const large = enter(2, 4);
    for (let n = 0; n < 8; n++) {
      void enter(1)?.catch(() => undefined);
      leave();
      await vi.advanceTimersByTimeAsync(0);
    }
    await large;
    expect([pool.held <= 10, inside.some(({ name }) => name === 's2 p0')]).toEqual([true, true]);
  });

  it('bounds a subject and a project, but not the first request of each', async () => {
    const { enter, waitOver } = start({ capacity: 16, subjectMax: 4, projectMax: 2 });
    expect([enter(1, 3), enter(2, 6), enter(3), enter(3), enter(3, 1, 1), enter(3, 1, 1)]).toEqual(
      Array(6).fill(undefined),
    );
    const refused = [enter(1), enter(2), enter(3, 1, 2)].map(async (wait) => {
      await expect(wait).rejects.toMatchObject({ code: 'rate_limited' });
    });
    waitOver();
    await Promise.all(refused);
  });

  it('admits a request that is larger than the capacity while nobody holds units', () => {
    const { pool, enter } = start({ capacity: 8 });
    expect(enter(1, 20)).toBeUndefined();
    expect(pool.held).toBe(20);
  });

  it('refuses after five seconds: 429 to a subject with its part, 503 to one with less', async () => {
    const { enter, leave, fill, waitOver, pool } = start({ capacity: 8 });
    fill();
    const own = expect(enter(1)).rejects.toMatchObject({
      code: 'rate_limited',
      detail: 'your share of units is in use: 8 of 8, 8 of them by this project',
      retryAfterS: 5,
    });
    waitOver();
    await own;
    for (let n = 0; n < 8; n++) leave();
    for (let subject = 0; subject < 8; subject++) void enter(subject);
    const other = expect(enter(99)).rejects.toMatchObject({
      code: 'overloaded',
      detail: 'the service has no units to spare',
    });
    waitOver();
    await other;
    expect(pool.refusals).toEqual({ rate_limited: 1, overloaded: 1 });
  });

  it('bounds the waiting requests, and refuses the latest one of the subject with most of them', async () => {
    const { pool, enter, fill, waitOver } = start({ capacity: 8, waitingMax: 20 });
    fill();
    const waits = Array.from({ length: 20 }, () => enter(1) as Promise<void>);
    void enter(2)?.catch(() => undefined);
    await expect(waits.at(-1)).rejects.toMatchObject({ code: 'rate_limited' });
    expect(pool.waiting).toBe(20);
    void Promise.allSettled(waits);
    waitOver();
    expect(pool.waiting).toBe(0);
  });

  it('refuses at once if its requests may not wait', async () => {
    const { pool, fill } = start({ capacity: 2, waitMs: 0 });
    fill();
    await expect(pool.take(keyOf(1), 1)).rejects.toMatchObject({ code: 'rate_limited' });
  });

  it('removes a waiting request that is given up, and serves the next', async () => {
    const { pool, enter, leave, fill } = start({ capacity: 8 });
    fill();
    const gone = new AbortController();
    const large = pool.take(keyOf(1), 4, gone.signal);
    const small = enter(1);
    leave();
    gone.abort(new Error('gone'));
    await expect(large).rejects.toThrow('gone');
    await small;
    expect(pool.waiting).toBe(0);
  });

  it('counts the units that a hold gives back and takes again, even if there are too few', () => {
    const { pool, inside, enter } = start({ capacity: 8 });
    void enter(1);
    const hold = inside[0]?.hold as Hold;
    hold.resize(0);
    expect(pool.held).toBe(0);
    for (let n = 0; n < 8; n++) void enter(2);
    hold.resize(1);
    expect(pool.held).toBe(9);
    hold[Symbol.dispose]();
    hold[Symbol.dispose]();
    hold.resize(5);
    expect(pool.held).toBe(8);
  });

  it('names the subject that holds most once another subject has waited and would still hold less', () => {
    const { pool, clock, enter, fill } = start({ capacity: 8 });
    fill();
    void enter(2, 3)?.catch(() => undefined);
    expect(pool.greedySubject(2_000)).toBeUndefined();
    clock.advance(2_000);
    expect(pool.greedySubject(2_000)).toBe('s1');
  });

  it('gives more units to a request that has begun, even while others wait', () => {
    const { pool, enter } = start({ capacity: 8 });
    for (let n = 0; n < 6; n++) void enter(1);
    void enter(2, 4)?.catch(() => undefined);
    expect(pool.tryTake(keyOf(1), 1)).toBeUndefined();
    expect(pool.tryTakeMore(keyOf(1), 1)).toBeDefined();
    expect(pool.tryTakeMore(keyOf(1), 2)).toBeUndefined();
  });
});
