import { describe, expect, it, vi } from 'vitest';
import { Places } from './places.ts';

const settle = () => new Promise((resolve) => setImmediate(resolve));

describe('places', () => {
  it('are given to as many as there are; another one waits until somebody leaves', async () => {
    const places = new Places(2, () => false);
    await places.take();
    await places.take();
    expect(places.isFull).toBe(true);
    let isIn = false;
    const waiting = places.take().then(() => {
      isIn = true;
    });
    await settle();
    expect(isIn).toBe(false);
    places.leave();
    await waiting;
    expect(places.isFull).toBe(true);
  });

  it('are vacated for whoever comes, also once one can be spared that could not before', async () => {
    let canSpare = false;
    const places = new Places(1, () => {
      if (canSpare) places.leave();
      return canSpare;
    });
    await places.take();
    const waiting = places.take();
    await settle();
    canSpare = true;
    places.announce();
    await waiting;
    expect(places.isFull).toBe(true);
  });

  it('are not waited for without end', async () => {
    const limit = new AbortController();
    vi.spyOn(AbortSignal, 'timeout').mockReturnValueOnce(limit.signal);
    const places = new Places(0, () => false);
    const refused = expect(places.take()).rejects.toMatchObject({ code: 'overloaded' });
    limit.abort();
    await refused;
  });
});
