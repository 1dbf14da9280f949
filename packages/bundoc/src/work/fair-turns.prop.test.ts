import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { FairTurns, TURNS_OF_SLICE } from './fair-turns.ts';

const SLICE_US = 2_000;
const key = (subject: number, project = 0) => ({ subject: `s${subject}`, project: `p${project}` });

/** All tasks wait again at once, and take the time that `usOf` returns. */
function grantsOf(
  turns: FairTurns<number>,
  keys: readonly ReturnType<typeof key>[],
  count: number,
  usOf: (task: number) => number,
): number[] {
  const grants: number[] = [];
  while (grants.length < count) {
    const task = turns.next();
    if (task === undefined) throw new Error('nobody was found although all wait');
    const of = keys[task] as ReturnType<typeof key>;
    grants.push(task);
    turns.add(of, task);
    turns.charge(of, usOf(task));
  }
  return grants;
}

const places = fc.array(fc.record({ subject: fc.nat(5), project: fc.nat(3) }), {
  minLength: 1,
  maxLength: 40,
});

describe('turns', () => {
  it('let no subject without debt wait for more slices than there are subjects', () => {
    fc.assert(
      fc.property(places, fc.array(fc.nat(3 * SLICE_US), { minLength: 7 }), (some, costs) => {
        const keys = [...some.map(({ subject, project }) => key(subject, project)), key(9)];
        const turns = new FairTurns<number>(SLICE_US);
        for (const [task, of] of keys.slice(0, -1).entries()) turns.add(of, task);
        const costOf = (task: number) => costs[task % costs.length] ?? 0;
        grantsOf(turns, keys, costs.length, costOf);
        // Comes last, and has taken nothing so far.
        const late = keys.length - 1;
        turns.add(key(9), late);
        const subjects = new Set(keys.map(({ subject }) => subject)).size;
        expect(grantsOf(turns, keys, subjects, costOf)).toContain(late);
      }),
    );
  });

  it('give subjects the same time in the long run, with any number of tasks, projects and long steps', () => {
    fc.assert(
      fc.property(
        places,
        fc.array(fc.integer({ min: SLICE_US, max: 5 * SLICE_US }), { minLength: 6, maxLength: 6 }),
        (some, costs) => {
          const keys = some.map(({ subject, project }) => key(subject, project));
          const turns = new FairTurns<number>(SLICE_US);
          for (const [task, of] of keys.entries()) turns.add(of, task);
          const used = new Map<string, number>(keys.map(({ subject }) => [subject, 0]));
          const costOf = (task: number) => costs[Number(keys[task]?.subject.slice(1))] ?? 0;
          for (const task of grantsOf(turns, keys, 600, costOf)) {
            const { subject } = keys[task] as ReturnType<typeof key>;
            used.set(subject, (used.get(subject) ?? 0) + costOf(task));
          }
          // One step each way.
          expect(Math.max(...used.values()) - Math.min(...used.values())).toBeLessThanOrEqual(12 * SLICE_US);
        },
      ),
    );
  });

  it('make no subject wait for more than two slices of each other one, plus the ends of their steps', () => {
    const stepUsMax = 5_000;
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 6 }),
        fc.array(fc.record({ usMax: fc.nat(stepUsMax), leaves: fc.boolean() }), {
          minLength: 400,
          maxLength: 400,
        }),
        (others, steps) => {
          const turns = new FairTurns<number>(SLICE_US);
          const away = new Set<number>();
          for (let n = 0; n < others; n++) turns.add(key(n), n);
          const waits = others;
          turns.add(key(waits), waits);
          let taken = new Map<number, { us: number; turns: number }>();
          for (const { usMax, leaves } of steps) {
            // A task that left returns for the next turn, like work that waits for a disk.
            for (const n of away) turns.add(key(n), n);
            away.clear();
            const task = turns.next();
            if (task === undefined) throw new Error('nobody was found although all wait');
            if (task === waits) {
              turns.charge(key(waits), SLICE_US);
              turns.add(key(waits), waits);
              taken = new Map();
              continue;
            }
            const before = taken.get(task) ?? { us: 0, turns: 0 };
            taken.set(task, { us: before.us + usMax, turns: before.turns + 1 });
            expect(taken.get(task)?.us).toBeLessThanOrEqual(2 * (SLICE_US + stepUsMax));
            expect(taken.get(task)?.turns).toBeLessThanOrEqual(2 * TURNS_OF_SLICE);
            turns.charge(key(task), usMax);
            if (leaves) away.add(task);
            else turns.add(key(task), task);
          }
        },
      ),
    );
  });

  it('prefer a subject that has taken little each time, beside any number of busy ones', () => {
    const turns = new FairTurns<string>(SLICE_US);
    for (let n = 0; n < 64; n++) turns.add(key(n), `busy ${n}`);
    const busy = () => {
      const task = turns.next() ?? '';
      const of = key(Number(task.split(' ')[1]));
      turns.add(of, task);
      turns.charge(of, SLICE_US);
    };
    for (let n = 0; n < 100; n++) busy();
    for (let step = 0; step < 4; step++) {
      turns.add(key(99), 'short');
      expect(turns.next()).toBe('short');
      turns.charge(key(99), SLICE_US / 10);
      busy();
    }
  });

  it('give a subject with short tasks as many in a round as fit into a slice, not only one', () => {
    const turns = new FairTurns<string>(SLICE_US);
    const busy = 64;
    for (let n = 0; n < busy; n++) turns.add(key(n), `busy ${n}`);
    const short = 8;
    for (let n = 0; n < short; n++) turns.add(key(99, n), `short ${n}`);
    let granted = 0;
    for (let grants = 0; grants < busy + short; grants++) {
      const task = turns.next() ?? '';
      const isShort = task.startsWith('short');
      const of = isShort ? key(99, Number(task.split(' ')[1])) : key(Number(task.split(' ')[1]));
      if (isShort) granted++;
      else turns.add(of, task);
      turns.charge(of, isShort ? SLICE_US / 10 : SLICE_US);
    }
    expect(granted).toBe(short);
  });

  it('are never lost: while any task waits, one has the next turn, even when others leave', () => {
    const command = fc.oneof(
      fc.record({ kind: fc.constant('add' as const), subject: fc.nat(3), project: fc.nat(2) }),
      fc.record({ kind: fc.constant('remove' as const), task: fc.nat(30) }),
      fc.record({ kind: fc.constant('next' as const), us: fc.nat(20_000) }),
    );
    fc.assert(
      fc.property(fc.array(command, { maxLength: 120 }), (commands) => {
        const turns = new FairTurns<number>(SLICE_US);
        const waiting = new Map<number, ReturnType<typeof key>>();
        for (const [task, one] of commands.entries()) {
          if (one.kind === 'add') {
            turns.add(key(one.subject, one.project), task);
            waiting.set(task, key(one.subject, one.project));
          } else if (one.kind === 'remove') {
            turns.remove(one.task);
            waiting.delete(one.task);
          } else {
            const next = turns.next();
            expect(next === undefined).toBe(waiting.size === 0);
            if (next === undefined) continue;
            const of = waiting.get(next);
            expect(of).toBeDefined();
            waiting.delete(next);
            turns.charge(of as ReturnType<typeof key>, one.us);
          }
          expect(turns.size).toBe(waiting.size);
        }
      }),
    );
  });

  it('are found in one pass over the subjects, however much all of them owe', () => {
    const SUBJECTS = 1_000;
    const turns = new FairTurns<number>(SLICE_US);
    for (let n = 0; n < SUBJECTS; n++) turns.add(key(n), n);
    for (let n = 0; n < SUBJECTS; n++) turns.charge(key(n), 1_000_000 - n);
    const sets = vi.spyOn(Map.prototype, 'set');
    const task = turns.next();
    const { length } = sets.mock.calls;
    sets.mockRestore();
    // The others owe less than a whole number of slices and follow; the first one comes a round later.
    expect(task).toBe(1);
    expect(length).toBeLessThanOrEqual(4 * SUBJECTS);
  });

  it('rotate among the projects of a subject, and among the tasks of a project', () => {
    const turns = new FairTurns<string>(SLICE_US);
    turns.add(key(1, 1), 'a');
    turns.add(key(1, 1), 'b');
    turns.add(key(1, 2), 'c');
    turns.add(key(2, 1), 'd');
    const order = Array.from({ length: 4 }, () => turns.next());
    expect(order).toEqual(['a', 'd', 'c', 'b']);
  });
});
