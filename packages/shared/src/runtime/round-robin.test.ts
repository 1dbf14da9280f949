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

  it('become few again as they are taken or removed', () => {
    const items = new RoundRobin<string>();
    add(items, 'a', FEW + 2);
    add(items, 'b', FEW + 2);
    expect(items.remove('b', 'b0')).toBe(true);
    expect(items.remove('b', 'b1')).toBe(true);
    expect(items.remove('b', 'b1')).toBe(false);
    expect(take(items, 3)).toEqual(['b2', 'b3', 'b4']);
  });

  it('are each taken once or removed, and those of a name in their order', () => {
    const kinds = fc.constantFrom('add', 'add', 'add', 'remove', 'next');
    const step = fc.tuple(kinds, fc.nat(1), fc.nat(200));
    // Long enough for names with many items, and for some that become few again.
    fc.assert(fc.property(fc.array(step, { minLength: 200, maxLength: 600 }), checkSteps));
  });
});

function checkSteps(steps: readonly [string, number, number][]): void {
  const items = new RoundRobin<string>();
  const waiting = new Map<string, string[]>();
  for (const [step, of, n] of steps) {
    const name = `${of}`;
    const own = waiting.get(name) ?? [];
    waiting.set(name, own);
    const item = `${name} ${n}`;
    if (step === 'remove') {
      expect(items.remove(name, item)).toBe(own.includes(item));
      if (own.includes(item)) own.splice(own.indexOf(item), 1);
    } else if (step === 'next') {
      const taken = items.next();
      if (taken === undefined) expect([...waiting.values()].flat()).toEqual([]);
      else expect(taken).toBe(waiting.get(taken.slice(0, 1))?.shift());
    } else if (!own.includes(item)) {
      items.add(name, item);
      own.push(item);
    }
    expect(items.size).toBe([...waiting.values()].flat().length);
  }
}
