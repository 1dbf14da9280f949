import { describe, expect, it } from 'vitest';
import { SegmentedLru } from './segmented-lru.ts';

function start(bytesMax: number) {
  const order = new SegmentedLru<{ name: string }>(bytesMax);
  const add = (name: string, bytes = 10) => order.add(name, { name }, bytes);
  /** Evicts everything. @returns the order of eviction. */
  const drain = () => {
    const names: string[] = [];
    for (let next = order.next(() => true); next !== undefined; next = order.next(() => true)) {
      names.push(next.name);
      order.delete(next.name);
    }
    return names.join('');
  };
  return { order, add, drain };
}

describe('the order of eviction', () => {
  it('starts with entries that were used once, then follows the last use', () => {
    const { order, add, drain } = start(1_000);
    for (const name of 'abcde') add(name);
    for (const name of 'dbd') order.used(name);
    expect(drain()).toBe('acebd');
  });

  it('skips entries that cannot be evicted', () => {
    const { order, add } = start(1_000);
    for (const name of 'ab') add(name);
    order.used('a');
    expect(order.next(({ name }) => name !== 'b')?.name).toBe('a');
    expect(order.next(() => false)).toBeUndefined();
  });

  it('leaves a fifth of the bytes to entries that were used once', () => {
    const { order, add, drain } = start(100);
    for (const name of 'abcdefghij') add(name);
    for (const name of 'abcdefghij') order.used(name);
    add('k');
    // Later entries that were used as often have displaced `a` and `b`.
    expect(drain()).toBe('abkcdefghij');
  });

  it('counts changed sizes in both segments', () => {
    const { order, add, drain } = start(100);
    for (const name of 'abc') add(name);
    for (const name of 'ab') order.used(name);
    order.resize('c', 50);
    order.resize('b', 75);
    expect(drain()).toBe('cab');
  });

  it('ignores a use of a removed entry', () => {
    const { order, add, drain } = start(100);
    add('a');
    order.used('a');
    order.delete('a');
    order.used('a');
    expect(drain()).toBe('');
  });
});
