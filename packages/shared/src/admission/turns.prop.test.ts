import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Accounts } from './account.ts';
import { Turns } from './turns.ts';

const task = fc.record({
  subject: fc.integer({ min: 0, max: 4 }),
  project: fc.integer({ min: 0, max: 3 }),
  us: fc.integer({ min: 1, max: 5_000 }),
});

/** Turns of tasks that always want another one, each with a cost. */
function start(
  tasks: readonly { readonly subject: number; readonly project: number; readonly us: number }[],
) {
  const accounts = new Accounts();
  const turns = new Turns<number>(accounts);
  const accountOf = (n: number) => {
    const { subject, project } = tasks[n] as (typeof tasks)[number];
    return accounts.of({ subject: `s${subject}`, project: `p${project}` });
  };
  const add = (n: number) => turns.add(accountOf(n), n);
  const next = (): number => {
    const n = turns.peek() as number;
    turns.take(accountOf(n), n);
    return n;
  };
  return { accounts, turns, accountOf, add, next };
}

describe('turns', () => {
  it('give equal parts to subjects, and to the projects of a subject, whatever their items cost', () => {
    fc.assert(
      fc.property(fc.array(task, { minLength: 1, maxLength: 12 }), (tasks) => {
        const { accounts, accountOf, add, next } = start(tasks);
        const used = new Map<string, number>();
        for (const n of tasks.keys()) add(n);
        for (let turn = 0; turn < 5_000; turn++) {
          const n = next();
          const { subject, project, us } = tasks[n] as (typeof tasks)[number];
          add(n);
          accounts.charge(accountOf(n), us);
          for (const name of [`s${subject}`, `s${subject} p${project}`])
            used.set(name, (used.get(name) ?? 0) + us);
        }
        const spread = (names: readonly string[]) => {
          const all = names.map((name) => used.get(name) ?? 0);
          return Math.max(...all) - Math.min(...all);
        };
        const subjects = [...new Set(tasks.map(({ subject }) => `s${subject}`))];
        // Nobody is further ahead than by its latest item.
        expect(spread(subjects)).toBeLessThanOrEqual(5_000);
        for (const subject of subjects)
          expect(
            spread([...used.keys()].filter((name) => name.startsWith(`${subject} `))),
          ).toBeLessThanOrEqual(5_000);
      }),
      { numRuns: 50 },
    );
  });

  it('come at once to a subject that was idle or is new, however much the others have used', () => {
    const others = Array.from({ length: 8 }, (_, subject) => ({ subject, project: 0, us: 1_000 }));
    const sparse = { subject: 50, project: 0, us: 300 };
    const { accounts, accountOf, add, next } = start([...others, sparse]);
    for (const n of others.keys()) add(n);
    for (let turn = 0; turn < 400; turn++) {
      const isSent = turn % 10 === 9;
      if (isSent) add(8);
      const n = next();
      if (isSent) expect(n).toBe(8);
      accounts.charge(accountOf(n), n === 8 ? 300 : 1_000);
      if (n !== 8) add(n);
    }
  });

  it('give no credit to a subject for time that it did not use', () => {
    const { accounts, accountOf, add, next } = start(
      [0, 1].map((subject) => ({ subject, project: 0, us: 1_000 })),
    );
    for (let turn = 0; turn < 1_000; turn++) {
      add(0);
      accounts.charge(accountOf(next()), 1_000);
    }
    const seen = [0, 0];
    add(0);
    add(1);
    for (let turn = 0; turn < 100; turn++) {
      const n = next();
      seen[n] = (seen[n] as number) + 1;
      add(n);
      accounts.charge(accountOf(n), 1_000);
    }
    expect(Math.abs((seen[0] as number) - (seen[1] as number))).toBeLessThanOrEqual(3);
  });

  it('forgive debt beyond a second, and all debt while nobody waits', () => {
    const { accounts, accountOf, add, next } = start(
      [0, 1].map((subject) => ({ subject, project: 0, us: 1_000 })),
    );
    const first = accountOf(0);
    add(1);
    accounts.charge(first, 60_000_000);
    add(0);
    let turns = 0;
    for (; next() === 1; turns++) {
      accounts.charge(accountOf(1), 10_000);
      add(1);
    }
    expect(turns).toBeGreaterThan(98);
    expect(turns).toBeLessThan(103);
    expect(next()).toBe(1);
    accounts.charge(first, 900_000);
    add(0);
    add(1);
    expect(next()).toBe(1);
    accounts.charge(accountOf(1), 5_000);
    add(1);
    expect(next()).toBe(0);
  });

  it('turns of one project come in the order of arrival', () => {
    const tasks = Array.from({ length: 20 }, () => ({ subject: 0, project: 0, us: 1 }));
    const { add, next } = start(tasks);
    for (const n of tasks.keys()) add(n);
    expect(tasks.map(() => next())).toEqual([...tasks.keys()]);
  });

  it('tell that an account would be next only if it does not wait and has used least', () => {
    const { accounts, accountOf, turns, add, next } = start(
      [0, 1, 2].map((subject) => ({ subject, project: 0, us: 1 })),
    );
    add(0);
    accounts.charge(accountOf(next()), 1_000);
    add(0);
    accounts.charge(accountOf(1), 10);
    expect(turns.wouldBeNext(accountOf(1))).toBe(true);
    accounts.charge(accountOf(1), 2_000);
    expect(turns.wouldBeNext(accountOf(1))).toBe(false);
    add(2);
    expect(turns.wouldBeNext(accountOf(2))).toBe(false);
  });
});

describe('accounts', () => {
  it('are removed after a single use, unless they are in use or in debt', () => {
    const accounts = new Accounts();
    const turns = new Turns<number>(accounts);
    const waiting = accounts.of({ subject: 'waiting', project: 'p' });
    turns.add(waiting, 1);
    const debtor = accounts.of({ subject: 'debtor', project: 'p' });
    accounts.charge(debtor, 500_000);
    for (let n = 0; n < 100_000; n++) accounts.of({ subject: `s${n}`, project: 'p' });
    expect(accounts.all.children.size).toBeLessThan(3_000);
    expect(accounts.of({ subject: 'waiting', project: 'p' })).toBe(waiting);
    for (let n = 0; n < 5_000; n++) {
      const { subject } = accounts.of({ subject: `t${n}`, project: 'p' });
      expect(accounts.all.children.get(`t${n}`)).toBe(subject);
    }
    expect(accounts.of({ subject: 'debtor', project: 'p' })).toBe(debtor);
  });
});
