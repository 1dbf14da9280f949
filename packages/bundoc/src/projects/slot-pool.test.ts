import { describe, expect, it, vi } from 'vitest';
import { SlotPool } from './slot-pool.ts';

const settle = () => new Promise((resolve) => setImmediate(resolve));

describe('slots', () => {
  it('are given to as many bytes as there are; another one waits until somebody leaves', async () => {
    const slots = new SlotPool(25, () => false);
    await slots.acquire(10);
    await slots.acquire(10);
    expect(slots.hasRoomFor(10)).toBe(false);
    let isIn = false;
    const waiting = slots.acquire(10).then(() => {
      isIn = true;
    });
    await settle();
    expect([isIn, slots.waiting]).toEqual([false, 1]);
    slots.release(10);
    await waiting;
    expect([slots.hasRoomFor(10), slots.bytes, slots.waiting]).toEqual([false, 20, 0]);
  });

  it('are vacated for anyone who comes, also once one can be spared that could not before', async () => {
    let canSpare = false;
    const slots = new SlotPool(10, () => {
      if (canSpare) slots.release(10);
      return canSpare;
    });
    await slots.acquire(10);
    const waiting = slots.acquire(10);
    await settle();
    canSpare = true;
    slots.notify();
    await waiting;
    expect(slots.hasRoomFor(10)).toBe(false);
  });

  it('are vacated, as far as they can be spared, for one that takes more bytes than it did', async () => {
    let spared = 0;
    const slots = new SlotPool(30, () => {
      if (spared === 2) return false;
      spared++;
      slots.release(10);
      return true;
    });
    for (let n = 0; n < 3; n++) await slots.acquire(10);
    slots.grow(5);
    expect([spared, slots.bytes]).toEqual([1, 25]);
    slots.grow(100);
    expect([spared, slots.bytes]).toEqual([2, 115]);
  });

  it('can be had by one, however many bytes it takes', async () => {
    const slots = new SlotPool(30, () => false);
    await slots.acquire(1_000);
    expect(slots.hasRoomFor(1)).toBe(false);
    slots.release(1_000);
    expect(slots.hasRoomFor(1_000)).toBe(true);
  });

  it('are not waited for without end', async () => {
    const limit = new AbortController();
    vi.spyOn(AbortSignal, 'timeout').mockReturnValueOnce(limit.signal);
    const slots = new SlotPool(10, () => false);
    await slots.acquire(10);
    const refused = expect(slots.acquire(10)).rejects.toMatchObject({ code: 'overloaded' });
    limit.abort();
    await refused;
  });
});
