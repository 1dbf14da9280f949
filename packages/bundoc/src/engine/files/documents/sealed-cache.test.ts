import { expect, it } from 'vitest';
import { createSealedCache } from './sealed-cache.ts';

const FILE = '3fa9'.repeat(8);
const bytes = Buffer.from('sealed');

it('the cache drops everything of a removed project, and keeps entries of projects with similar names', () => {
  const cache = createSealedCache(1_000_000);
  const others = ['b', 'aa', 'a-', `a${FILE}`, 'A'];
  for (const project of ['a', ...others]) cache.set(project, FILE, bytes);
  cache.set('a', 'b'.repeat(32), bytes);
  cache.deleteAll('a');
  expect([cache.get('a', FILE), cache.get('a', 'b'.repeat(32))]).toEqual([undefined, undefined]);
  for (const project of others) expect(cache.get(project, FILE)).toBe(bytes);
});

it('a disabled cache keeps nothing and deletes nothing', () => {
  const cache = createSealedCache(0);
  cache.set('a', FILE, bytes);
  cache.deleteAll('a');
  expect(cache.get('a', FILE)).toBeUndefined();
});

it('the cache frees large entries that it gives up, and the buffers that it does not keep', () => {
  const large = () => Buffer.alloc(100_000);
  const cache = createSealedCache(250_000);
  const [evicted, replaced, updated, deleted] = [large(), large(), large(), large()];
  for (const [project, sealed] of [
    ['a', evicted],
    ['b', replaced],
    ['b', updated],
    ['c', deleted],
  ] as const)
    cache.set(project, FILE, sealed);
  expect([evicted.length, replaced.length, updated.length]).toEqual([0, 0, 100_000]);
  cache.update('b', FILE, large());
  cache.delete('c', FILE);
  expect([updated.length, deleted.length]).toEqual([0, 0]);
  expect(cache.get('b', FILE)).toHaveLength(100_000);
  for (const bytesMax of [0, 100_000]) {
    const unkept = large();
    const small = createSealedCache(bytesMax);
    small.set('a', FILE, unkept);
    expect([unkept.length, small.get('a', FILE)]).toEqual([0, undefined]);
  }
  cache.update('b', FILE, Buffer.alloc(300_000));
  expect(cache.get('b', FILE)).toBeUndefined();
});
