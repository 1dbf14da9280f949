import { setImmediate } from 'node:timers/promises';
import { Share, WAIT_MS_MAX } from '@bundoc/shared/shares/share';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { WorkBench } from '../testing/work-bench.ts';
import { Scheduler, SLICE_US } from './scheduler.ts';
import { WORK_MS_MAX } from './work.ts';

const key = (subject: number) => ({ subject: `s${subject}`, project: 'p' });

describe('long work', () => {
  it('takes one slice and the end of one step a turn at most, uses every turn, and ends', async () => {
    const STEP_MAX_US = 3_000;
    const task = fc.record({
      subject: fc.nat(4),
      steps: fc.array(fc.integer({ min: 1, max: STEP_MAX_US }), { maxLength: 12 }),
      waitsAfter: fc.option(fc.nat(12)),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(task, { minLength: 1, maxLength: 12 }), async (tasks) => {
        const bench = new WorkBench();
        const scheduler = new Scheduler(bench.ports);
        let ended = 0;
        for (const { subject, steps, waitsAfter } of tasks)
          void (async () => {
            using work = scheduler.work(key(subject), 'query');
            for (const [n, us] of steps.entries()) {
              const turn = work.pause();
              if (turn !== undefined) await turn;
              bench.take(us);
              if (n === waitsAfter) await work.outside(() => undefined);
            }
            ended++;
          })();
        await setImmediate();
        const first = bench.takenInTurn;
        expect(first).toBeLessThanOrEqual(SLICE_US + STEP_MAX_US * tasks.length);
        while (bench.isTurnComing) {
          const waiting = scheduler.waiting;
          await bench.turn();
          expect(bench.takenInTurn).toBeLessThanOrEqual(SLICE_US + STEP_MAX_US);
          if (waiting > 0) expect(scheduler.slices).toBeGreaterThan(0);
        }
        expect([ended, scheduler.waiting]).toEqual([tasks.length, 0]);
        expect(Math.round(scheduler.usedS('query') * 1e6)).toBe(bench.takenUs);
      }),
      { numRuns: 200 },
    );
  });

  it('runs at once while nobody waits and the slice lasts, without a promise', () => {
    const bench = new WorkBench();
    const scheduler = new Scheduler(bench.ports);
    using work = scheduler.work(key(1), 'batch');
    expect(work.pause()).toBeUndefined();
    bench.take(SLICE_US - 1);
    expect(work.pause()).toBeUndefined();
    bench.take(1);
    expect(work.pause()).toBeInstanceOf(Promise);
  });

  it('of others begins in the same turn only with what is left of the slice', async () => {
    const bench = new WorkBench();
    const scheduler = new Scheduler(bench.ports);
    using first = scheduler.work(key(1), 'batch');
    using second = scheduler.work(key(2), 'batch');
    using third = scheduler.work(key(3), 'batch');
    expect(first.pause()).toBeUndefined();
    bench.take(1_500);
    first.leave();
    expect(second.pause()).toBeUndefined();
    bench.take(600);
    second.leave();
    const waits = third.pause();
    expect(waits).toBeInstanceOf(Promise);
    await bench.turn();
    await waits;
    expect(scheduler.slices).toBe(1);
  });

  it('that waits ends at once with the reason of its signal, and leaves no trace', async () => {
    const bench = new WorkBench();
    const scheduler = new Scheduler(bench.ports);
    using busy = scheduler.work(key(1), 'query');
    expect(busy.pause()).toBeUndefined();
    bench.take(SLICE_US);
    const controller = new AbortController();
    using work = scheduler.work(key(2), 'query', controller.signal);
    const waits = work.pause();
    expect(scheduler.waiting).toBe(1);
    controller.abort(new Error('nobody waits'));
    await expect(waits).rejects.toThrow('nobody waits');
    expect(scheduler.waiting).toBe(0);
    await expect(work.pause()).rejects.toThrow('nobody waits');
  });

  it('is not charged for what it waits for', async () => {
    const bench = new WorkBench();
    const scheduler = new Scheduler(bench.ports);
    using work = scheduler.work(key(1), 'query');
    await work.outside(async () => {
      bench.take(100);
      await Promise.resolve();
      bench.take(10_000);
    });
    work.leave();
    expect(scheduler.usedS('query')).toBeCloseTo(0.000_1, 9);
  });

  it('that has not begun is refused after it has waited too long; what has begun goes on', async () => {
    const bench = new WorkBench();
    const places = room(8);
    const scheduler = new Scheduler({ ...bench.ports, places });
    using busy = scheduler.work(key(1), 'query');
    expect(busy.pause()).toBeUndefined();
    bench.take(SLICE_US);
    const begun = busy.pause();
    using late = scheduler.work(key(2), 'query');
    const waits = expect(late.pause()).rejects.toMatchObject({ code: 'overloaded' });
    bench.take(WAIT_MS_MAX * 1_000);
    await bench.turn();
    await waits;
    await begun;
    expect([scheduler.waiting, places.held]).toEqual([0, 1]);
    busy[Symbol.dispose]();
    expect(places.held).toBe(0);
  });

  it('of a request is refused once it has taken too long, in turns or in reads; that of the service goes on', async () => {
    const tooLong = { code: 'overloaded', detail: 'the request took too long' };
    const bench = new WorkBench();
    const scheduler = new Scheduler(bench.ports);
    using own = scheduler.background('p', 'index');
    using work = scheduler.work(key(1), 'query');
    expect(work.pause()).toBeUndefined();
    bench.take(WORK_MS_MAX * 1_000 - 1);
    const late = expect(work.pause()).rejects.toMatchObject(tooLong);
    bench.take(1);
    await bench.turn();
    await late;
    await expect(work.outside(() => 'never read')).rejects.toMatchObject(tooLong);
    using reader = scheduler.work(key(2), 'query');
    for (const reads of [reader, own]) {
      const read = reads.outside(async () => {
        await setImmediate();
        bench.take(WORK_MS_MAX * 1_000);
        return 'read';
      });
      const ends =
        reads === own ? expect(read).resolves.toBe('read') : expect(read).rejects.toMatchObject(tooLong);
      for (let turns = 0; turns < 4; turns++) await bench.turn();
      await ends;
    }
    expect(scheduler.waiting).toBe(0);
  });

  it('that waits takes a place, of which a subject and a project have a part, and leaves it when it ends', async () => {
    const bench = new WorkBench();
    const places = room(8);
    const scheduler = new Scheduler({ ...bench.ports, places });
    using busy = scheduler.work(key(9), 'query');
    expect(busy.pause()).toBeUndefined();
    bench.take(SLICE_US);
    const begin = (subject: number, project: number) => {
      const work = scheduler.work({ subject: `s${subject}`, project: `p${project}` }, 'query');
      return { work, waits: work.pause() };
    };
    const first = begin(1, 1);
    await expect(begin(1, 1).waits).rejects.toMatchObject({ code: 'rate_limited' });
    const second = begin(1, 2);
    await expect(begin(1, 3).waits).rejects.toMatchObject({ code: 'rate_limited' });
    using own = scheduler.background('p1', 'index');
    const ownWaits = own.pause();
    expect([scheduler.waiting, places.held]).toEqual([3, 2]);
    while (scheduler.waiting > 0) await bench.turn();
    await Promise.all([first.waits, second.waits, ownWaits]);
    first.work[Symbol.dispose]();
    using third = begin(1, 1).work;
    expect(third.pause()).toBeUndefined();
    second.work[Symbol.dispose]();
    expect(places.held).toBe(0);
  });

  it('holds memory of its share, which it has back when it ends or is refused', () => {
    const memory = room(64 * MIB);
    const scheduler = new Scheduler({ memory });
    using one = scheduler.work(key(1), 'query');
    one.hold(200_000);
    expect(memory.held).toBe(0);
    one.hold(8 * MIB);
    expect(memory.held).toBe(8 * MIB);
    // The first may be larger than its part.
    using first = scheduler.work(key(3), 'query');
    first.hold(9 * MIB);
    first[Symbol.dispose]();
    expect(() => one.hold(9 * MIB)).toThrow(expect.objectContaining({ code: 'rate_limited' }));
    one.hold(3 * MIB);
    expect(memory.held).toBe(3 * MIB);
    using other = scheduler.work({ subject: 's1', project: 'other' }, 'query');
    expect(() => other.hold(14 * MIB)).toThrow(expect.objectContaining({ code: 'rate_limited' }));
    other.hold(5 * MIB);
    for (const work of [one, other]) work[Symbol.dispose]();
    expect([memory.held, memory.subjects]).toEqual([0, 0]);
  });
});

const MIB = 1_048_576;

/** A share of so many units, of which a subject has a quarter and a project an eighth. */
function room(capacity: number): Share {
  const [subjectMax, projectMax] = [capacity / 4, capacity / 8];
  return new Share({ name: 'room', capacity, subjectMax, projectMax, waitMs: 0, clock: new FakeClock() });
}
