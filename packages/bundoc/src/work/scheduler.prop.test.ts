import { setImmediate } from 'node:timers/promises';
import { Pool } from '@bundoc/shared/admission/pool';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { WorkBench } from '../testing/work-bench.ts';
import { AHEAD_US, Scheduler, SLICE_US } from './scheduler.ts';
import { WORK_MS_MAX } from './work.ts';

const key = (subject: number) => ({ subject: `s${subject}`, project: 'p' });

describe('long work', () => {
  it('takes at most one slice and its time ahead in a turn, and always comes to its end', async () => {
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
          // A step of the slice and one of what runs ahead of the next may exceed it.
          expect(bench.takenInTurn).toBeLessThanOrEqual(SLICE_US + AHEAD_US + 2 * STEP_MAX_US);
          if (waiting > 0) expect(scheduler.slices).toBeGreaterThan(0);
        }
        expect([ended, scheduler.waiting]).toEqual([tasks.length, 0]);
        expect(Math.round(scheduler.usedS('query') * 1e6)).toBe(bench.takenUs);
      }),
      { numRuns: 200 },
    );
  });

  it('runs at once, without a promise, while nothing waits and the slice lasts', () => {
    const bench = new WorkBench();
    const scheduler = new Scheduler(bench.ports);
    using work = scheduler.work(key(1), 'batch');
    expect(work.pause()).toBeUndefined();
    bench.take(SLICE_US - 1);
    expect(work.pause()).toBeUndefined();
    bench.take(1);
    expect(work.pause()).toBeInstanceOf(Promise);
  });

  it('starts in the same turn as other work only if the slice has time left', async () => {
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

  it('on an index rests after each slice while requests are in the service, and holds up nobody', async () => {
    for (const isShared of [true, false]) {
      const bench = new WorkBench();
      const rests: (() => void)[] = [];
      const rest = () => new Promise<void>((resolve) => rests.push(resolve));
      const scheduler = new Scheduler({ ...bench.ports, rest, isShared: () => isShared });
      using build = scheduler.background('p', 'index');
      expect(build.pause()).toBeUndefined();
      bench.take(SLICE_US);
      const waits = build.pause();
      expect(rests.length).toBe(isShared ? 1 : 0);
      expect(scheduler.waiting).toBe(isShared ? 0 : 1);
      await bench.turn();
      if (isShared) {
        using other = scheduler.work(key(1), 'query');
        expect(other.pause()).toBeUndefined();
        other.leave();
        for (const over of rests) over();
        await setImmediate();
        await bench.turn();
      }
      await waits;
    }
  });

  it('leaves the rest of its slice to other work in the same turn', async () => {
    const { bench, scheduler } = startBusy();
    const ended: number[] = [];
    const short = [1, 2, 3].map(async (subject) => {
      using work = scheduler.work(key(subject), 'query');
      await work.pause();
      bench.take(SLICE_US / 2);
      work.leave();
      ended.push(subject);
    });
    await bench.turn();
    expect(ended).toEqual([1, 2]);
    await bench.turn();
    await Promise.all(short);
  });

  it('long work of a subject waits for at most one piece of each of 64 subjects that have just begun', async () => {
    const { bench, scheduler } = startBusy();
    const run = async (subject: number, steps: number) => {
      using work = scheduler.work(key(subject), 'query');
      for (let step = 0; step < steps; step++) {
        const turn = work.pause();
        if (turn !== undefined) await turn;
        bench.take(450);
        work.leave();
      }
    };
    // Each attacker comes with its pieces in a row, so that it had few at first.
    const attack = Array.from({ length: 64 * 12 }, (_, n) => run(Math.floor(n / 12), 4));
    for (let n = 0; n < 20; n++) {
      let isDone = false;
      const short = run(70, 1).then(() => {
        isDone = true;
      });
      for (let turns = 0; !isDone; turns++) {
        expect(turns).toBeLessThan(4 + (64 * 450) / SLICE_US);
        await bench.turn();
      }
      await short;
    }
    while (bench.isTurnComing) await bench.turn();
    await Promise.all(attack);
    expect(scheduler.waiting).toBe(0);
  });

  it('long work of a subject that has used least runs ahead of waiting work, for up to half a slice a turn', async () => {
    const { bench, scheduler } = startBusy();
    let isOver = false;
    const long = (async () => {
      using work = scheduler.work(key(1), 'query');
      while (!isOver) {
        await work.pause();
        bench.take(100);
      }
    })();
    /** A piece of subject 50, if it need not wait. */
    const runAhead = (us: number): boolean => {
      using work = scheduler.work(key(50), 'read');
      if (work.pause() !== undefined) {
        scheduler.dequeue(work);
        return false;
      }
      bench.take(us);
      return true;
    };
    for (let n = 0; n < 10; n++) {
      for (let turn = 0; turn < 3; turn++) await bench.turn();
      expect(runAhead(AHEAD_US / 2)).toBe(true);
      expect(runAhead(AHEAD_US / 2)).toBe(true);
      expect(runAhead(1)).toBe(false);
      await bench.turn();
      expect(bench.takenInTurn).toBe(SLICE_US / 2);
    }
    isOver = true;
    while (bench.isTurnComing) await bench.turn();
    await long;
  });

  it('long work of the subject that has used least comes first, and subjects with equal use get equal parts', async () => {
    const { bench, scheduler } = startBusy();
    const taken = new Map<string, number>();
    let isOver = false;
    const run = async (subject: number, project: string, us: number) => {
      using work = scheduler.work({ subject: `s${subject}`, project }, 'query');
      while (!isOver) {
        await work.pause();
        bench.take(us);
        const name = `${subject}${project}`;
        taken.set(name, (taken.get(name) ?? 0) + us);
        work.leave();
      }
    };
    const all = [
      ...Array.from({ length: 20 }, () => run(1, 'a', 1_900)),
      ...Array.from({ length: 3 }, () => run(1, 'b', 300)),
      run(2, 'a', 700),
    ];
    for (let turn = 0; turn < 2_000; turn++) await bench.turn();
    isOver = true;
    while (bench.isTurnComing) await bench.turn();
    await Promise.all(all);
    const sum = [...taken.values()].reduce((one, other) => one + other);
    const parts = Object.fromEntries(
      [...taken].map(([name, us]) => [name, Math.round((us / sum) * 20) / 20]),
    );
    expect(parts).toEqual({ '1a': 0.25, '1b': 0.25, '2a': 0.5 });
  });

  it('owes others at most the maximum of a step, even if the process stands still during it', async () => {
    const bench = new WorkBench();
    const scheduler = new Scheduler(bench.ports);
    let served = 0;
    const subjects = [1, 2].map(async (subject) => {
      using work = scheduler.work(key(subject), 'query');
      for (let n = 0; n < 40; n++) {
        await work.pause();
        bench.take(subject === 1 && n === 2 ? 1_000_000 : SLICE_US);
        if (subject === 1) served++;
      }
    });
    for (let turn = 0; turn < 30; turn++) await bench.turn();
    expect(served).toBeGreaterThanOrEqual(10);
    while (bench.isTurnComing) await bench.turn();
    await Promise.all(subjects);
  });

  it('stops waiting at once with the reason of its signal, and is removed from the queue', async () => {
    const { scheduler } = startBusy();
    const controller = new AbortController();
    using work = scheduler.work(key(2), 'query', controller.signal);
    const waits = work.pause();
    expect(scheduler.waiting).toBe(1);
    controller.abort(new Error('nobody waits'));
    await expect(waits).rejects.toThrow('nobody waits');
    expect(scheduler.waiting).toBe(0);
    await expect(work.pause()).rejects.toThrow('nobody waits');
  });

  it('returns the hold that it waited for, if its time is over by then', async () => {
    const bench = new WorkBench();
    const scheduler = new Scheduler(bench.ports);
    const reads = room(8);
    const abort = new AbortController();
    using work = scheduler.work(key(1), 'projection', abort.signal);
    const taken = work.outside(async () => {
      const hold = await reads.take(key(1), 1);
      abort.abort(new Error('the client has gone'));
      return hold;
    });
    await expect(taken).rejects.toThrow('the client has gone');
    expect(reads.held).toBe(0);
  });

  it('is not charged for its waits', async () => {
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

  it('long work of a request is refused after its maximum time, and work of the service itself is not', async () => {
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

  it('holds memory of the pool, and returns it when it ends or is refused', () => {
    const memory = room(64 * MIB);
    const scheduler = new Scheduler({ memory });
    using one = scheduler.work(key(1), 'query');
    one.hold(200_000);
    expect(memory.held).toBe(0);
    one.hold(8 * MIB);
    expect(memory.held).toBe(8 * MIB);
    // The first may be larger than its share.
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

/** A scheduler whose present turn is over, so that further work waits. */
function startBusy() {
  const bench = new WorkBench();
  const scheduler = new Scheduler(bench.ports);
  const busy = scheduler.work(key(99), 'query');
  expect(busy.pause()).toBeUndefined();
  bench.take(SLICE_US);
  return { bench, scheduler, busy };
}

/** A share of this capacity, with a quarter for a subject and an eighth for a project. */
function room(capacity: number): Pool {
  const [subjectMax, projectMax] = [capacity / 4, capacity / 8];
  return new Pool({ name: 'room', capacity, subjectMax, projectMax, waitMs: 0, clock: new FakeClock() });
}
