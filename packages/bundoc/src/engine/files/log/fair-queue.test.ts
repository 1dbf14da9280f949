import { describe, expect, it } from 'vitest';
import { FairQueue } from './fair-queue.ts';

/** Rounds in which each item takes as much as it may, but at least `least`. */
function take(
  queue: FairQueue<string>,
  rounds: number,
  least: Record<string, number>,
  frame: number,
): Record<string, number> {
  const taken: Record<string, number> = {};
  for (let round = 0; round < rounds; round++)
    queue.round(
      frame,
      (left) => left <= 0,
      (item, max) => {
        const bytes = Math.max(least[item] ?? 0, max);
        taken[item] = (taken[item] ?? 0) + bytes;
        return bytes;
      },
    );
  return taken;
}

/** An item's name starts with its group: `a/1`. */
const queueOf = (shareMin: number) => new FairQueue<string>(shareMin, (item) => item.split('/')[0] ?? '');

describe('FairQueue', () => {
  it('gives a group with many items no more than a group with one', () => {
    const queue = queueOf(10);
    for (let n = 0; n < 1_000; n++) queue.add(`many/${n}`);
    queue.add('one/1');
    const taken = take(queue, 50, {}, 1_000);
    const one = taken['one/1'] ?? 0;
    const all = Object.values(taken).reduce((sum, bytes) => sum + bytes, 0);
    expect(one / all).toBeGreaterThan(0.45);
  });

  it('asks each group before it asks one twice, even if a single take fills the round', () => {
    const queue = queueOf(10);
    for (const item of ['a/1', 'a/2', 'a/3', 'b/1', 'c/1']) queue.add(item);
    const order: string[] = [];
    for (let round = 0; round < 5; round++)
      queue.round(
        100,
        (left) => left <= 0,
        (item) => {
          order.push(item);
          return 100;
        },
      );
    expect(order.slice(0, 3).map((item) => item[0])).toEqual(['a', 'b', 'c']);
    expect(new Set(order)).toEqual(new Set(['a/1', 'a/2', 'a/3', 'b/1', 'c/1']));
  });

  it('gives everything to a single waiter', () => {
    const queue = queueOf(10);
    queue.add('a');
    expect(take(queue, 3, {}, 1_000)).toEqual({ a: 3_000 });
  });

  it('gives equal shares by bytes, however much one takes at a time', () => {
    const queue = queueOf(10);
    for (const item of ['small', 'large', 'other']) queue.add(item);
    const taken = take(queue, 300, { large: 900 }, 900);
    const mean = (taken['small']! + taken['large']! + taken['other']!) / 3;
    for (const bytes of Object.values(taken)) expect(bytes / mean).toBeCloseTo(1, 0);
    expect(taken['large']! / taken['small']!).toBeLessThan(1.5);
  });

  it('starts the next round with those that had no turn', () => {
    const queue = queueOf(100);
    for (let at = 0; at < 30; at++) queue.add(String(at));
    const taken = take(queue, 30, {}, 1_000);
    expect(Object.keys(taken)).toHaveLength(30);
    expect(Math.max(...Object.values(taken)) - Math.min(...Object.values(taken))).toBeLessThanOrEqual(100);
  });

  it('drops an item without work, and adds it again at the end', () => {
    const queue = queueOf(10);
    queue.add('a');
    queue.add('b');
    queue.round(
      100,
      () => false,
      (item) => (item === 'a' ? undefined : 1),
    );
    expect(queue.items()).toEqual(['b']);
    queue.add('a');
    queue.add('a');
    expect(queue.items()).toEqual(['b', 'a']);
    queue.remove('b');
    expect(queue.size).toBe(1);
  });
});
