import { expect, it } from 'vitest';
import { RoundRobin } from './round-robin.ts';

it('names take turns, and the items of a name come in their order', () => {
  const items = new RoundRobin<string>();
  for (const item of ['a1', 'a2', 'a3', 'b1', 'c1', 'b2']) items.add(item.charAt(0), item);
  expect(items.size).toBe(6);
  const order = Array.from({ length: 7 }, () => items.next());
  expect(order).toEqual(['a1', 'b1', 'c1', 'a2', 'b2', 'a3', undefined]);
  expect(items.size).toBe(0);
});

it('a removed item has no turn, and only what is there can be removed', () => {
  const items = new RoundRobin<string>();
  for (const item of ['a1', 'a2', 'b1']) items.add(item.charAt(0), item);
  expect([items.remove('a', 'a1'), items.remove('a', 'a1'), items.remove('b', 'a2')]).toEqual([
    ...[true, false, false],
  ]);
  expect([items.size, items.next(), items.next(), items.next()]).toEqual([2, 'a2', 'b1', undefined]);
});
