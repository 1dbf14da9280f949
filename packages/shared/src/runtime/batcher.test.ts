import { expect, it } from 'vitest';
import { Batcher, type BatcherOptions } from './batcher.ts';

/** A batcher whose batches run until the test completes them. */
function heldBatcher(options: Omit<BatcherOptions<number>, 'run'>) {
  const batches: (readonly number[])[] = [];
  const ends: (() => void)[] = [];
  const run = (batch: readonly number[]) => {
    batches.push(batch);
    return new Promise<void>((resolve) => ends.push(resolve));
  };
  return { batcher: new Batcher({ ...options, run }), batches, endNext: () => ends.shift()?.() };
}

it('items that arrive while a batch runs form the next one, in order and up to its maximum size', async () => {
  const { batcher, batches, endNext } = heldBatcher({ queue: 3 });
  for (const item of [1, 2, 3, 4, 5]) batcher.add(item);
  expect(batches).toEqual([[1]]);
  expect(batcher.waiting).toBe(4);
  endNext();
  await expect.poll(() => batches).toEqual([[1], [2, 3, 4]]);
  endNext();
  await expect.poll(() => batches).toEqual([[1], [2, 3, 4], [5]]);
  endNext();
  await batcher.settled();
  expect(batcher.waiting).toBe(0);
});

it('the maximum number of batches run concurrently, and an item that arrives after all have ended starts one', async () => {
  const { batcher, batches, endNext } = heldBatcher({ queue: 2, batchesMax: 2 });
  for (const item of [1, 2, 3, 4]) batcher.add(item);
  expect(batches).toEqual([[1], [2]]);
  endNext();
  await expect.poll(() => batches).toEqual([[1], [2], [3, 4]]);
  endNext();
  endNext();
  await batcher.settled();
  batcher.add(5);
  expect(batches.at(-1)).toEqual([5]);
});

it('a gathering batcher puts all items of one turn of the event loop into the first batch', async () => {
  const batches: (readonly number[])[] = [];
  const batcher = new Batcher<number>({
    queue: 100,
    isGathering: true,
    run: async (batch) => void batches.push(batch),
  });
  batcher.add(1);
  await Promise.resolve();
  batcher.add(2);
  await batcher.settled();
  expect(batches).toEqual([[1, 2]]);
});
