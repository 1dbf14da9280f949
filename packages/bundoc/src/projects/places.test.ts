import type { Hold } from '@bundoc/shared/shares/share';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { describe, expect, it } from 'vitest';
import { Places } from './places.ts';

const settle = () => new Promise((resolve) => setImmediate(resolve));
const one = { subject: 's', project: 'p' };

describe('places', () => {
  it('are given to as many bytes as there are; another one waits until somebody leaves', async () => {
    const places = new Places(25, () => false);
    const first = await places.take(one, 10);
    await places.take(one, 10);
    expect(places.hasRoomFor(10)).toBe(false);
    let isIn = false;
    const waiting = places.take(one, 10).then(() => {
      isIn = true;
    });
    await settle();
    expect([isIn, places.waiting]).toEqual([false, 1]);
    places.leave(first);
    await waiting;
    expect([places.hasRoomFor(10), places.bytes, places.waiting]).toEqual([false, 20, 0]);
  });

  it('are vacated for whoever comes, also once one can be spared that could not before', async () => {
    let canSpare = false;
    const places: Places = new Places(10, () => {
      if (canSpare) places.leave(taken);
      return canSpare;
    });
    const taken = await places.take(one, 10);
    const waiting = places.take(one, 10);
    await settle();
    canSpare = true;
    places.announce();
    await waiting;
    expect(places.hasRoomFor(10)).toBe(false);
  });

  it('are vacated, as far as they can be spared, for one that takes more bytes than it did', async () => {
    const taken: Hold[] = [];
    let spared = 0;
    const places = new Places(30, () => {
      if (spared === 2) return false;
      places.leave(taken[++spared] as Hold);
      return true;
    });
    for (let n = 0; n < 3; n++) taken.push(await places.take(one, 10));
    const [grown] = taken as [Hold];
    places.resize(grown, 15);
    expect([spared, places.bytes]).toEqual([1, 25]);
    places.resize(grown, 115);
    expect([spared, places.bytes]).toEqual([2, 115]);
  });

  it('can be had by one, however many bytes it takes', async () => {
    const places = new Places(30, () => false);
    const large = await places.take(one, 1_000);
    expect(places.hasRoomFor(1)).toBe(false);
    places.leave(large);
    expect(places.hasRoomFor(1_000)).toBe(true);
  });

  it('go to the subject that has fewest, and then to the project that has, whoever came first', async () => {
    const places = new Places(40, () => false);
    const held = [];
    for (const project of ['p', 'p', 'q']) held.push(await places.take({ subject: 'many', project }, 10));
    held.push(await places.take({ subject: 'few', project: 'p' }, 10));
    const served: string[] = [];
    const waiting = ['many/p', 'many/q', 'few/p'].map(async (name) => {
      const [subject = '', project = ''] = name.split('/');
      await places.take({ subject, project }, 10);
      served.push(name);
    });
    await settle();
    for (const place of held.slice(1)) {
      places.leave(place);
      await settle();
    }
    await Promise.all(waiting);
    expect(served).toEqual(['few/p', 'many/q', 'many/p']);
  });

  it('are not waited for without end', async () => {
    const clock = new FakeClock();
    const places = new Places(10, () => false, clock);
    await places.take(one, 10);
    const refused = expect(places.take({ subject: 'other', project: 'p' }, 10)).rejects.toMatchObject({
      code: 'overloaded',
    });
    clock.advance(4_500);
    places.sweep();
    await refused;
  });
});
