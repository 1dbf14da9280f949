import fc from 'fast-check';
import { expect, it } from 'vitest';
import { type Levelled, Levels } from './levels.ts';

interface Task extends Levelled {
  readonly name: string;
  usedUs: number;
  isOfLittle: boolean;
}

function task(name: string, subject: string, { usedUs = 0, isOfLittle = false } = {}): Task {
  return { name, key: { subject, project: 'p' }, usedUs, isOfLittle };
}

/** Lets the next task take some time. */
function runNext(levels: Levels<Task>, us: number): Task | undefined {
  const next = levels.next();
  if (next !== undefined) {
    levels.charge(next, us);
    next.usedUs += us;
  }
  return next;
}

it('a task of a subject with little work comes before those of all others, whatever its subject owes', () => {
  const levels = new Levels<Task>();
  for (let n = 0; n < 200; n++) levels.add(task(`of many ${n}`, `s${n % 50}`));
  levels.add(task('first', 'neighbour', { isOfLittle: true }));
  expect(runNext(levels, 7_000)?.name).toBe('first');
  for (let n = 0; n < 20; n++) {
    levels.add(task('another', 'neighbour', { isOfLittle: true }));
    const names = [runNext(levels, 400), runNext(levels, 400)].map((next) => next?.name);
    expect(names).toContain('another');
  }
});

it('a task leaves the level of little work when its subject has got more', () => {
  const levels = new Levels<Task>();
  const early = Array.from({ length: 5 }, (_, n) => task(`early ${n}`, 'flood', { isOfLittle: true }));
  for (const one of early) levels.add(one);
  for (const one of early) one.isOfLittle = false;
  levels.add(task('of few', 'neighbour', { isOfLittle: true }));
  expect(runNext(levels, 100)?.name).toBe('of few');
  expect(levels.size).toBe(5);
  for (let n = 0; n < 5; n++) expect(runNext(levels, 100)?.name).toMatch(/^early/);
  expect(runNext(levels, 100)).toBeUndefined();
});

it('a task comes before those that have taken more', () => {
  const levels = new Levels<Task>();
  levels.add(task('long', 'a', { usedUs: 50_000 }));
  levels.add(task('short', 'b', { usedUs: 1_000 }));
  levels.add(task('new', 'c'));
  const order = [0, 1, 2].map(() => runNext(levels, 100)?.name);
  expect(order).toEqual(['new', 'short', 'long']);
});

it('long work of a subject gets an equal part of the time beside floods of short work, and no more, however short the work and the slices are', () => {
  const flood = fc.record({
    isOfLittle: fc.boolean(),
    usedUs: fc.constantFrom(0, 1_000),
    pieceUs: fc.constantFrom(100, 300, 1_000, 2_000),
  });
  fc.assert(
    fc.property(
      fc.array(flood, { minLength: 1, maxLength: 3 }),
      fc.integer({ min: 1, max: 8 }),
      fc.constantFrom(500, 1_000, 2_000),
      (floods, many, sliceUs) => {
        const levels = new Levels<Task>();
        const send = (n: number) => levels.add(task(`flood ${n}`, `s${n}`, floods[n]));
        for (const n of floods.keys()) for (let one = 0; one < many; one++) send(n);
        const long = task('long', 'victim', { usedUs: 50_000 });
        levels.add(long);
        const totalUs = 400_000;
        let longUs = 0;
        for (let us = 0; us < totalUs; ) {
          const at = levels.size;
          const next = levels.next(sliceUs);
          if (next === undefined) throw new Error(`none of ${at} tasks has a turn`);
          const n = Number(next.key.subject.slice(1));
          const pieceUs = next === long ? sliceUs : Math.min(sliceUs, floods[n]?.pieceUs ?? 0);
          levels.charge(next, pieceUs);
          us += pieceUs;
          if (next === long) {
            longUs += pieceUs;
            levels.add(long);
          } else send(n);
        }
        const part = totalUs / (floods.length + 1);
        expect(longUs).toBeGreaterThan(0.85 * part - 4_000);
        expect(longUs).toBeLessThan(1.15 * part + 4_000);
      },
    ),
  );
});

it('every level has a turn after a bounded number of turns of others, so no task starves', () => {
  const kind = fc.record({
    usedUs: fc.constantFrom(0, 1_000, 10_000),
    isOfLittle: fc.boolean(),
    subject: fc.nat(5),
  });
  fc.assert(
    fc.property(fc.array(kind, { minLength: 1, maxLength: 30 }), fc.nat(29), (kinds, at) => {
      const levels = new Levels<Task>();
      // A flood of new tasks never ends.
      for (const [n, { subject, ...rest }] of kinds.entries())
        levels.add(task(n === at % kinds.length ? 'watched' : 'other', `s${subject}`, rest));
      for (let turns = 0; ; turns++) {
        expect(turns).toBeLessThan(17 * 8 * (kinds.length + 1));
        levels.add(task('flood', `s${turns % 6}`));
        if (runNext(levels, 2_000)?.name === 'watched') return;
      }
    }),
  );
});

it('a task that does not wait passes those that do only until these are due, however short it is', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 4 }),
      fc.constantFrom(100, 400, 1_000),
      // The last step of a short slice may take much longer.
      fc.constantFrom([500, 500], [500, 2_000], [2_000, 2_000]),
      (victims, pieceUs, [sliceUs, takenUs]) => {
        const levels = new Levels<Task>();
        const short = task('short', 'flood', { isOfLittle: true });
        for (let n = 0; n < victims; n++) levels.add(task('long', `v${n}`, { usedUs: 50_000 }));
        const usOf = { short: 0, long: 0 };
        while (usOf.short + usOf.long < 200_000) {
          if (levels.wouldBeNext(short)) {
            levels.charge(short, pieceUs);
            usOf.short += pieceUs;
          } else {
            const next = levels.next(sliceUs) as Task;
            levels.charge(next, takenUs);
            levels.add(next);
            usOf.long += takenUs;
          }
        }
        expect(usOf.long).toBeGreaterThan(0.4 * 200_000);
        expect(usOf.short).toBeGreaterThan(0.4 * 200_000);
      },
    ),
  );
});
