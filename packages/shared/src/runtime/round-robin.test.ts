import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FEW, RoundRobin } from './round-robin.ts';

function take(items: RoundRobin<string>, count: number): (string | undefined)[] {
  return Array.from({ length: count }, () => items.next());
}

/** Adds items that are called after their name and number. */
function add(items: RoundRobin<string>, name: string, count: number): void {
  for (let n = 0; n < count; n++) items.add(name, `${name}${n}`);
}

describe('items that wait by name', () => {
  it('are taken in turn by name, and of each name in their order', () => {
    const items = new RoundRobin<string>();
    add(items, 'a', 3);
    add(items, 'b', 2);
    expect(take(items, 6)).toEqual(['a0', 'b0', 'a1', 'b1', 'a2', undefined]);
  });

  it('of a name with clearly fewer go before those of others, but for each fourth', () => {
    const items = new RoundRobin<string>();
    add(items, 'a', FEW + 4);
    add(items, 'b', FEW + 4);
    add(items, 'c', FEW);
    expect(take(items, 7)).toEqual(['c0', 'c1', 'c2', 'a0', 'c3', 'b0', 'a1']);
  });

  it('of a name do not wait for many others with twice as many, whatever the numbers', () => {
    for (const count of [1, 20, 50]) {
      const items = new RoundRobin<string>();
      for (let n = 0; n < 64; n++) add(items, `flood ${n} `, 2 * Math.max(FEW, count) + 1);
      add(items, 'neighbour ', count);
      const taken = take(items, 2 * count);
      expect(taken.filter((item) => item?.startsWith('neighbour'))).toHaveLength(count);
    }
  });

  it('of a name with many have turns too, however long others have few', () => {
    const items = new RoundRobin<string>();
    add(items, 'flood ', 100);
    add(items, 'other ', 1);
    let ofFlood = 0;
    for (let n = 0; n < 80; n++) {
      const item = items.next();
      if (item === 'other 0') items.add('other ', item);
      else ofFlood++;
    }
    expect(ofFlood).toBeGreaterThanOrEqual(10);
  });

  it('that are second come behind others of their name, but for each fourth', () => {
    const items = new RoundRobin<string>();
    items.add('a', 'late', true);
    items.add('a', 'later', true);
    add(items, 'a', 2);
    items.add('b', 'b0', true);
    expect(take(items, 6)).toEqual(['a0', 'b0', 'a1', 'late', 'later', undefined]);
  });

  it('become few again as they are taken or removed', () => {
    const items = new RoundRobin<string>();
    add(items, 'a', FEW + 2);
    add(items, 'b', FEW + 2);
    expect(items.remove('b', 'b0')).toBe(true);
    expect(items.remove('b', 'b1')).toBe(true);
    expect(items.remove('b', 'b1')).toBe(false);
    expect(take(items, 3)).toEqual(['b2', 'b3', 'b4']);
  });

  it('are each taken once or removed, and those of a name in their order, but for second ones', () => {
    const kinds = fc.constantFrom('add', 'add', 'add', 'second', 'remove', 'next');
    const step = fc.tuple(kinds, fc.nat(1), fc.nat(200));
    // Long enough for names with many items, and for some that become few again.
    fc.assert(fc.property(fc.array(step, { minLength: 200, maxLength: 600 }), checkSteps));
  });
});

function checkSteps(steps: readonly [string, number, number][]): void {
  const items = new RoundRobin<string>();
  const waiting = new Map<string, { readonly first: string[]; readonly second: string[] }>();
  const all = () => [...waiting.values()].flatMap(({ first, second }) => [...first, ...second]);
  for (const [step, of, n] of steps) {
    const name = `${of}`;
    const own = waiting.get(name) ?? { first: [], second: [] };
    waiting.set(name, own);
    const item = `${name} ${n}`;
    const queue = [own.first, own.second].find((some) => some.includes(item));
    if (step === 'remove') {
      expect(items.remove(name, item)).toBe(queue !== undefined);
      queue?.splice(queue.indexOf(item), 1);
    } else if (step === 'next') {
      const taken = items.next();
      const from = waiting.get(taken?.slice(0, 1) ?? '');
      if (taken === undefined) expect(all()).toEqual([]);
      else if (from?.first[0] === taken) from.first.shift();
      else expect(taken).toBe(from?.second.shift());
    } else if (queue === undefined) {
      items.add(name, item, step === 'second');
      (step === 'second' ? own.second : own.first).push(item);
    }
    expect(items.size).toBe(all().length);
  }
}
