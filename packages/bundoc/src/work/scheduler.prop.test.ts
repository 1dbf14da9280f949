import { setImmediate } from 'node:timers/promises';
import { Share, WAIT_MS_MAX } from '@bundoc/shared/shares/share';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { WorkBench } from '../testing/work-bench.ts';
import { SLICE_US } from './levels.ts';
import { AHEAD_US, Scheduler, type SchedulerDeps } from './scheduler.ts';
import { WORK_MS_MAX, type Work, type WorkKind } from './work.ts';

const key = (subject: number) => ({ subject: `s${subject}`, project: 'p' });

describe('long work', () => {
  it('takes at most one slice in a turn, and some ahead of the next, uses every turn, and ends', async () => {
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

  it('runs at once while nothing waits and the slice lasts, without a promise', () => {
    const bench = new WorkBench();
    const scheduler = new Scheduler(bench.ports);
    using work = scheduler.work(key(1), 'batch');
    expect(work.pause()).toBeUndefined();
    bench.take(SLICE_US - 1);
    expect(work.pause()).toBeUndefined();
    bench.take(1);
    expect(work.pause()).toBeInstanceOf(Promise);
  });

  it('starts in the same turn as other work only in the rest of the slice', async () => {
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

  it('gives what it leaves of its slice to others, in the same turn', async () => {
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

  it('comes first while it has taken little, however many subjects have taken more, which still have turns', async () => {
    const { bench, scheduler } = startBusy();
    const order: string[] = [];
    const begun = new Set<number>();
    const run = async (name: string, subject: number, slices: number) => {
      using work = scheduler.work(key(subject), 'query');
      for (let slice = 0; slice < slices; slice++) {
        await work.pause();
        bench.take(SLICE_US + 1);
        order.push(name);
        begun.add(subject);
      }
    };
    const long = Array.from({ length: 20 }, (_, n) => run('long', n, 5));
    while (begun.size < long.length) await bench.turn();
    order.length = 0;
    const short = Array.from({ length: 6 }, (_, n) => run('short', 30 + n, 1));
    for (let turn = 0; turn < 8; turn++) await bench.turn();
    expect(order.filter((name) => name === 'short')).toHaveLength(6);
    expect(order.slice(0, 8)).toContain('long');
    while (bench.isTurnComing) await bench.turn();
    await Promise.all([...long, ...short]);
  });

  it('of a subject with few pieces does not wait for the many of 64 others, though they have just begun', async () => {
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
        expect(turns).toBeLessThan(10);
        await bench.turn();
      }
      await short;
    }
    while (bench.isTurnComing) await bench.turn();
    await Promise.all(attack);
    expect(scheduler.waiting).toBe(0);
  });

  it('counts what it took in another thread, so that it no longer comes first', async () => {
    const bench = new WorkBench();
    const scheduler = new Scheduler(bench.ports);
    using heavy = scheduler.work(key(1), 'query');
    scheduler.count(heavy, 50_000);
    using busy = scheduler.work(key(99), 'query');
    expect(busy.pause()).toBeUndefined();
    bench.take(SLICE_US);
    const order: string[] = [];
    const run = async (work: Work, name: string) => {
      await work.pause();
      order.push(name);
      bench.take(SLICE_US);
    };
    using light = scheduler.work(key(2), 'query');
    const both = [run(heavy, 'heavy'), run(light, 'light')];
    for (let turn = 0; turn < 3; turn++) await bench.turn();
    await Promise.all(both);
    expect(order).toEqual(['light', 'heavy']);
  });

  it('that may not begin yet begins by turns of the projects of its subject, those with few pieces first', async () => {
    const bench = new WorkBench();
    const scheduler = new Scheduler({ ...bench.ports, requestsMax: 64 });
    const others = Array.from({ length: 15 }, (_, n) => scheduler.work(key(n + 10), 'query'));
    for (const other of others) {
      const turn = other.pause();
      other.leave();
      while (bench.isTurnComing) await bench.turn();
      await turn;
    }
    bench.take(SLICE_US);
    using busy = scheduler.work(key(99), 'query');
    expect(busy.pause()).toBeUndefined();
    bench.take(SLICE_US);
    const begun: Work[] = [];
    const begin = (project: string) => {
      const work = scheduler.work({ subject: 's1', project }, 'query');
      void work.pause()?.then(() => {
        begun.push(work);
        work.leave();
      });
    };
    for (let n = 0; n < 12; n++) begin('flood');
    for (let n = 0; n < 2; n++) begin('other');
    while (bench.isTurnComing) await bench.turn();
    expect(begun.map(({ key: { project } }) => project)).toEqual(['flood', 'flood', 'flood', 'flood']);
    for (let n = 0; n < 4; n++) {
      begun[n]?.[Symbol.dispose]();
      while (bench.isTurnComing) await bench.turn();
    }
    const projects = begun.slice(4).map(({ key: { project } }) => project);
    expect(projects).toEqual(['other', 'other', 'flood', 'flood']);
    for (const work of [...others, ...begun]) work[Symbol.dispose]();
    while (bench.isTurnComing) await bench.turn();
    for (const work of begun) work[Symbol.dispose]();
    expect(scheduler.waiting).toBe(0);
  });

  it('runs a bounded number of pieces for a subject beside others, and the next ones as these end', async () => {
    const bench = new WorkBench();
    const scheduler = new Scheduler({ ...bench.ports, requestsMax: 64 });
    const begun: Work[] = [];
    const begin = (subject: number) => {
      const work = scheduler.work(key(subject), 'query');
      const turn = work.pause();
      if (turn === undefined) begun.push(work);
      else void turn.then(() => begun.push(work));
      work.leave();
    };
    const of = (subject: number) => begun.filter((work) => work.key.subject === `s${subject}`);
    for (let subject = 0; subject < 15; subject++) begin(subject);
    while (bench.isTurnComing) await bench.turn();
    bench.take(SLICE_US);
    using busy = scheduler.work(key(99), 'query');
    expect(busy.pause()).toBeUndefined();
    bench.take(SLICE_US);
    for (let n = 0; n < 5; n++) begin(0);
    while (bench.isTurnComing) await bench.turn();
    expect([of(0).length, scheduler.waiting]).toEqual([4, 2]);
    // Nothing passes what waits, though the processor is free.
    begin(0);
    expect([of(0).length, scheduler.waiting]).toEqual([4, 3]);
    of(0)[0]?.[Symbol.dispose]();
    while (bench.isTurnComing) await bench.turn();
    expect([of(0).length, scheduler.waiting]).toEqual([5, 2]);
    // The others end: nobody is kept waiting for them.
    for (const work of begun.splice(0)) work[Symbol.dispose]();
    while (bench.isTurnComing) await bench.turn();
    expect([of(0).length, scheduler.waiting]).toEqual([2, 0]);
    for (const work of begun) work[Symbol.dispose]();
  });

  it('runs a bounded number of pieces of several subjects in all, and at least one of each', async () => {
    const { begin, begun, turnAll, endAll, scheduler } = startFull();
    const all = Array.from({ length: 30 }, (_, n) => begin(n % 3));
    await turnAll();
    // The busy subject is the fourth.
    expect(counts(begun)).toEqual({ s0: 2, s1: 2, s2: 2 });
    for (let subject = 3; subject < 12; subject++) all.push(begin(subject));
    await turnAll();
    expect(begun).toHaveLength(6 + 9);
    await endAll(all);
    expect(counts(begun.slice(15))).toEqual({ s0: 8, s1: 8, s2: 8 });
    for (let n = 15; n < 39; n += 3) expect(Object.keys(counts(begun.slice(n, n + 3)))).toHaveLength(3);
    expect(scheduler.waiting).toBe(0);
  });

  it('of a subject that was alone do not take the places of the next subject', async () => {
    const { begin, begun, turnAll, endAll, scheduler, busy, bench } = startFull();
    busy[Symbol.dispose]();
    const flood = Array.from({ length: 100 }, () => begin(0));
    await turnAll();
    expect(begun).toHaveLength(100);
    // The rest of the turn is taken, so that the next ones wait.
    using read = scheduler.work(key(0), 'read');
    expect(read.pause()).toBeUndefined();
    bench.take(SLICE_US);
    const all = [...flood, ...Array.from({ length: 20 }, () => begin(1)), begin(0)];
    await turnAll();
    // Half of the places, and a few that began while it had asked for little.
    const { s0, s1 = 0 } = counts(begun);
    expect([s0, s1 >= 4, s1 < 10]).toEqual([100, true, true]);
    await endAll(all);
    expect(scheduler.waiting).toBe(0);
  });

  it.each(['read', 'write', 'changes'] as const)('of kind %s is not bounded in number', async (kind) => {
    const bench = new WorkBench();
    const scheduler = new Scheduler(bench.ports);
    using other = scheduler.work(key(1), 'query');
    expect(other.pause()).toBeUndefined();
    other.leave();
    using _second = scheduler.work(key(2), 'query');
    expect(_second.pause()).toBeUndefined();
    bench.take(SLICE_US);
    const waits = Array.from({ length: 200 }, async () => {
      await scheduler.work(key(1), kind).pause();
    });
    for (let turns = 0; scheduler.waiting > 0; turns++) {
      expect(turns).toBeLessThan(waits.length + 1);
      await bench.turn();
    }
    await Promise.all(waits);
  });

  it('finds places for a subject up to its equal part when others have taken all of them', async () => {
    const { places, begin, turnAll } = startWithoutPlaces(64, 'read');
    const late = Array.from({ length: 9 }, () => begin(50));
    await expect(late.at(-1)).rejects.toMatchObject({ code: 'rate_limited' });
    expect(places.heldBy('s50')).toBe(8);
    await turnAll();
    await Promise.all(late.slice(0, -1));
  });

  it('finds a few places for a subject when others have taken all of them', async () => {
    const { places, begin, turnAll, scheduler } = startWithoutPlaces(8, 'query');
    const late = begin(50);
    expect([places.held, scheduler.waiting]).toEqual([9, 9]);
    await turnAll();
    await late;
  });

  it('finds places for a subject with little, in short pieces, though others have taken many more than all', async () => {
    const { places, begin, turnAll } = startWithoutPlaces(128, 'read', { shortSubject: 50 });
    const beyond = Array.from({ length: 128 }, (_, n) => begin(100 + (n % 16)));
    expect(places.held).toBe(256);
    const late = Array.from({ length: 17 }, () => begin(50));
    await expect(late.at(-1)).rejects.toMatchObject({ code: 'rate_limited' });
    const other = Array.from({ length: 9 }, () => begin(51));
    await expect(other.at(-1)).rejects.toMatchObject({ code: 'rate_limited' });
    expect([places.heldBy('s50'), places.heldBy('s51')]).toEqual([16, 8]);
    await turnAll();
    await Promise.all([...beyond, ...late.slice(0, -1), ...other.slice(0, -1)]);
  });

  it('of a subject with little, in short pieces, does not wait for a turn while others do, half a slice long', async () => {
    const { bench, scheduler, others, piece } = startBesideShort();
    for (let turn = 0; turn < 5; turn++) {
      for (let n = 0; n < 10; n++) expect(piece(AHEAD_US / 10)).toBe('at once');
      expect(piece(100)).toBe('waits');
      await bench.turn();
      await bench.turn();
    }
    using unknown = scheduler.work(key(60), 'query');
    expect(unknown.pause()).toBeInstanceOf(Promise);
    await others.end();
  });

  it('has shorter slices while a subject has little, in short pieces, and for a second after that', async () => {
    const { bench, others, piece } = startBesideShort();
    const taken: number[] = [];
    for (const isSent of [true, true, false]) {
      if (isSent) expect(piece(100)).toBe('at once');
      await bench.turn();
      taken.push(bench.takenInTurn);
    }
    expect(taken).toEqual([400, 400, 500]);
    // What else the turn before took makes it longer, up to half of a slice.
    bench.take(3_160);
    await bench.turn();
    expect(bench.takenInTurn).toBe(800);
    bench.take(900_000);
    await bench.turn();
    expect(bench.takenInTurn).toBeLessThanOrEqual(SLICE_US / 2 + 100);
    bench.take(100_000);
    await bench.turn();
    expect(bench.takenInTurn).toBe(SLICE_US);
    await others.end();
  });

  it('has an equal part of the time beside a subject that never ceases to send short pieces', async () => {
    const { bench, others, piece } = startBesideShort();
    const [beganUs, ofOthersUs] = [bench.takenUs, others.takenUs];
    for (let turn = 0; turn < 500; turn++) {
      while (piece(200) === 'at once');
      await bench.turn();
    }
    const part = (others.takenUs - ofOthersUs) / (bench.takenUs - beganUs);
    expect(part).toBeGreaterThan(0.4);
    expect(part).toBeLessThan(0.6);
    await others.end();
  });

  it("does not go ahead of the service's own work, whose slices stay long for a sole subject", async () => {
    const bench = new WorkBench();
    const scheduler = new Scheduler(bench.ports);
    learnShort(bench, scheduler, 50);
    using own = scheduler.background('p', 'snapshot');
    expect(own.pause()).toBeUndefined();
    bench.take(SLICE_US);
    const next = own.pause();
    using work = scheduler.work(key(50), 'write');
    expect(work.pause()).toBeInstanceOf(Promise);
    for (let turn = 0; turn < 2; turn++) await bench.turn();
    await next;
  });

  it('does not go ahead of others once a piece is no longer short', async () => {
    const { bench, scheduler, others } = startBesideShort();
    using long = scheduler.work(key(50), 'read');
    expect(long.pause()).toBeUndefined();
    bench.take(AHEAD_US + 1);
    expect(long.pause()).toBeInstanceOf(Promise);
    for (let turn = 0; turn < 3; turn++) await bench.turn();
    expect(long.pause()).toBeInstanceOf(Promise);
    for (let turn = 0; turn < 3; turn++) await bench.turn();
    await others.end();
  });

  it('owes others no more than a step, whatever stops the process during it', async () => {
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

  it('ends at once with the reason of its signal while it waits, and leaves no trace', async () => {
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

  it('returns a hold that it has taken, if it may not go on then', async () => {
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

  it('is refused after a long wait if it has not begun, and continues if it has', async () => {
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

  it('is not refused for a wait between its turns, also when it waited for its first one', async () => {
    const { bench, scheduler } = startBusy();
    using work = scheduler.work(key(2), 'query');
    const first = work.pause();
    await bench.turn();
    await first;
    bench.take(SLICE_US);
    const next = work.pause();
    bench.take(WAIT_MS_MAX * 1_000);
    await bench.turn();
    await expect(next).resolves.toBeUndefined();
  });

  it("is refused once a request has taken too long, in turns or in reads; the service's own work continues", async () => {
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

  it('takes a place while it waits, within the share of its subject and project, and returns it at its end', async () => {
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
    await bench.turn();
    first.work[Symbol.dispose]();
    using third = begin(1, 1).work;
    expect(third.pause()).toBeUndefined();
    second.work[Symbol.dispose]();
    expect(places.held).toBe(0);
  });

  it('holds memory from its share, and returns it when it ends or is refused', () => {
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
function startBusy(deps: Partial<SchedulerDeps> = {}, shortSubject?: number) {
  const bench = new WorkBench();
  const scheduler = new Scheduler({ ...bench.ports, ...deps });
  if (shortSubject !== undefined) learnShort(bench, scheduler, shortSubject);
  const busy = scheduler.work(key(99), 'query');
  expect(busy.pause()).toBeUndefined();
  bench.take(SLICE_US);
  return { bench, scheduler, busy };
}

/** Has a subject known for short pieces. */
function learnShort(bench: WorkBench, scheduler: Scheduler, subject: number): void {
  using work = scheduler.work(key(subject), 'read');
  expect(work.pause()).toBeUndefined();
  bench.take(100);
}

/** A scheduler where subject 1 always has work, in steps of 100 µs. Subject 50 is known for short pieces. */
function startBesideShort() {
  const bench = new WorkBench();
  const scheduler = new Scheduler(bench.ports);
  learnShort(bench, scheduler, 50);
  const others = { takenUs: 0, isOver: false, end: () => Promise.resolve() };
  const work = (async () => {
    using one = scheduler.work(key(1), 'query');
    while (!others.isOver) {
      const turn = one.pause();
      if (turn !== undefined) await turn;
      bench.take(100);
      others.takenUs += 100;
    }
  })();
  const waits: Promise<void>[] = [work];
  others.end = async () => {
    others.isOver = true;
    while (bench.isTurnComing) await bench.turn();
    await Promise.all(waits);
  };
  /** A piece of subject 50. One that waits ends in a later turn. */
  const piece = (us: number): 'at once' | 'waits' => {
    const own = scheduler.work(key(50), 'read');
    const run = () => {
      bench.take(us);
      own[Symbol.dispose]();
    };
    const turn = own.pause();
    if (turn === undefined) run();
    else waits.push(turn.then(run));
    return turn === undefined ? 'at once' : 'waits';
  };
  return { bench, scheduler, others, piece };
}

/** A scheduler whose places are all taken by eight subjects: the part of a project is an eighth. */
function startWithoutPlaces(
  capacity: number,
  kind: WorkKind,
  { shortSubject }: { shortSubject?: number } = {},
) {
  const places = room(capacity);
  const { bench, scheduler } = startBusy({ places }, shortSubject);
  const begin = (subject: number) => scheduler.work(key(subject), kind).pause() as Promise<void>;
  const flood = Array.from({ length: capacity }, (_, n) => begin(n % 8));
  expect(places.held).toBe(capacity);
  const turnAll = async () => {
    while (scheduler.waiting > 0) await bench.turn();
    await Promise.all(flood);
  };
  return { places, scheduler, begin, turnAll };
}

/** A scheduler of eight pieces at a time. A piece that has begun waits. */
function startFull() {
  const { bench, scheduler, busy } = startBusy({ requestsMax: 8 });
  const begun: Work[] = [];
  const begin = async (subject: number) => {
    const work = scheduler.work(key(subject), 'query');
    await work.pause();
    begun.push(work);
    work.leave();
  };
  const turnAll = async () => {
    while (bench.isTurnComing) await bench.turn();
  };
  /** Ends what has begun, one after the other. */
  const endAll = async (all: readonly Promise<void>[]) => {
    for (let ended = 0; ended < all.length; ended++) {
      begun[ended]?.[Symbol.dispose]();
      await turnAll();
    }
    await Promise.all(all);
  };
  return { bench, scheduler, busy, begun, begin, turnAll, endAll };
}

/** Pieces of each subject. */
function counts(works: readonly Work[]): Record<string, number> {
  const groups = Object.groupBy(works, ({ key: { subject } }) => subject);
  return Object.fromEntries(Object.entries(groups).map(([subject, some]) => [subject, some?.length ?? 0]));
}

/** A share of this capacity, with a quarter for a subject and an eighth for a project. */
function room(capacity: number): Share {
  const [subjectMax, projectMax] = [capacity / 4, capacity / 8];
  return new Share({ name: 'room', capacity, subjectMax, projectMax, waitMs: 0, clock: new FakeClock() });
}
