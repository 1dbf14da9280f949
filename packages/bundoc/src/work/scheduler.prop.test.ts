import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { WorkBench } from '../testing/work-bench.ts';
import { Scheduler, SLICE_US } from './scheduler.ts';

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
});
