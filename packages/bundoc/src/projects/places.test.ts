import { describe, expect, it, vi } from 'vitest';
import { Places } from './places.ts';

const settle = () => new Promise((resolve) => setImmediate(resolve));

describe('places', () => {
  it('are given to as many bytes as there are; another one waits until somebody leaves', async () => {
    const places = new Places(25, () => false);
    await places.take(10);
    await places.take(10);
    expect(places.hasRoomFor(10)).toBe(false);
    let isIn = false;
    const waiting = places.take(10).then(() => {
      isIn = true;
    });
    await settle();
    expect([isIn, places.waiting]).toEqual([false, 1]);
    places.leave(10);
    await waiting;
    expect([places.hasRoomFor(10), places.bytes, places.waiting]).toEqual([false, 20, 0]);
  });

  it('are vacated for anyone who comes, also once one can be spared that could not before', async () => {
    let canSpare = false;
    const places = new Places(10, () => {
      if (canSpare) places.leave(10);
      return canSpare;
    });
    await places.take(10);
    const waiting = places.take(10);
    await settle();
    canSpare = true;
    places.announce();
    await waiting;
    expect(places.hasRoomFor(10)).toBe(false);
  });

  it('are vacated, as far as they can be spared, for one that takes more bytes than it did', async () => {
    let spared = 0;
    const places = new Places(30, () => {
      if (spared === 2) return false;
      spared++;
      places.leave(10);
      return true;
    });
    for (let n = 0; n < 3; n++) await places.take(10);
    places.grow(5);
    expect([spared, places.bytes]).toEqual([1, 25]);
    places.grow(100);
    expect([spared, places.bytes]).toEqual([2, 115]);
  });

  it('can be had by one, however many bytes it takes', async () => {
    const places = new Places(30, () => false);
    await places.take(1_000);
    expect(places.hasRoomFor(1)).toBe(false);
    places.leave(1_000);
    expect(places.hasRoomFor(1_000)).toBe(true);
  });

  it('are not waited for without end', async () => {
    const limit = new AbortController();
    vi.spyOn(AbortSignal, 'timeout').mockReturnValueOnce(limit.signal);
    const places = new Places(10, () => false);
    await places.take(10);
    const refused = expect(places.take(10)).rejects.toMatchObject({ code: 'overloaded' });
    limit.abort();
    await refused;
  });
});
