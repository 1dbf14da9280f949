import type { Hold } from '@bundoc/shared/shares/hold';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { nextTurn } from '@bundoc/shared/testing/timing';
import { describe, expect, it } from 'vitest';
import { SlotPool } from './slot-pool.ts';

const one = { subject: 's', project: 'p' };

describe('slots', () => {
  it('are granted up to the total bytes; another caller waits until one is returned', async () => {
    const slots = new SlotPool({ slotBytesMin: 10, bytesMax: 25, evict: () => false });
    const first = await slots.acquire(one, 10);
    await slots.acquire(one, 10);
    expect(slots.hasSpare(10)).toBe(false);
    let isIn = false;
    const waiting = slots.acquire(one, 10).then(() => {
      isIn = true;
    });
    await nextTurn();
    expect([isIn, slots.waiting]).toEqual([false, 1]);
    slots.release(first);
    await waiting;
    expect([slots.hasSpare(10), slots.bytes, slots.waiting]).toEqual([false, 20, 0]);
  });

  it('are evicted for new callers, also once another one becomes evictable', async () => {
    let canSpare = false;
    const slots: SlotPool = new SlotPool({
      slotBytesMin: 10,
      bytesMax: 10,
      evict: () => {
        if (canSpare) slots.release(taken);
        return canSpare;
      },
    });
    const taken = await slots.acquire(one, 10);
    const waiting = slots.acquire(one, 10);
    await nextTurn();
    canSpare = true;
    slots.notify();
    await waiting;
    expect(slots.hasSpare(10)).toBe(false);
  });

  it('are evicted, as far as possible, when one grows', async () => {
    const taken: Hold[] = [];
    let spared = 0;
    const slots = new SlotPool({
      slotBytesMin: 10,
      bytesMax: 30,
      evict: () => {
        if (spared === 2) return false;
        slots.release(taken[++spared] as Hold);
        return true;
      },
    });
    for (let n = 0; n < 3; n++) taken.push(await slots.acquire(one, 10));
    const [grown] = taken as [Hold];
    slots.resize(grown, 15);
    expect([spared, slots.bytes]).toEqual([1, 25]);
    slots.resize(grown, 115);
    expect([spared, slots.bytes]).toEqual([2, 115]);
  });

  it('are available to one caller, however many bytes it takes', async () => {
    const slots = new SlotPool({ slotBytesMin: 10, bytesMax: 30, evict: () => false });
    const large = await slots.acquire(one, 1_000);
    expect(slots.hasSpare(1)).toBe(false);
    slots.release(large);
    expect(slots.hasSpare(1_000)).toBe(true);
  });

  it('go to the subject with the fewest, then to the project with the fewest, in any order of arrival', async () => {
    const slots = new SlotPool({ slotBytesMin: 10, bytesMax: 40, evict: () => false });
    const held = [];
    for (const project of ['p', 'p', 'q']) held.push(await slots.acquire({ subject: 'many', project }, 10));
    held.push(await slots.acquire({ subject: 'few', project: 'p' }, 10));
    const served: string[] = [];
    const waiting = ['many/p', 'many/q', 'few/p'].map(async (name) => {
      const [subject = '', project = ''] = name.split('/');
      await slots.acquire({ subject, project }, 10);
      served.push(name);
    });
    await nextTurn();
    for (const slot of held.slice(1)) {
      slots.release(slot);
      await nextTurn();
    }
    await Promise.all(waiting);
    expect(served).toEqual(['few/p', 'many/q', 'many/p']);
  });

  it('of small size are available while a large one waits, with a limit for each subject', async () => {
    const slots = new SlotPool({ bytesMax: 64_000, slotBytesMin: 1_000, evict: () => false });
    const held = await slots.acquire(one, 50_000);
    const large = slots.acquire({ subject: 'large', project: 'p' }, 20_000);
    await nextTurn();
    const small = (subject: string) => slots.acquire({ subject, project: 'p' }, 1_000);
    const others = [await small('a'), await small('b'), await small('a')];
    expect([slots.waiting, slots.bytes]).toEqual([1, 53_000]);
    const third = small('a');
    await nextTurn();
    expect(slots.waiting).toBe(2);
    slots.release(held);
    await Promise.all([large, third]);
    expect(slots.bytes).toBe(20_000 + 1_000 * (others.length + 1));
  });

  it('of small size evict others, and use the reserve only if none can be evicted', async () => {
    const evicted: Hold[] = [];
    const taken: Hold[] = [];
    const slots = new SlotPool({
      bytesMax: 64_000,
      slotBytesMin: 1_000,
      evict: () => {
        const spare = taken.shift();
        if (spare === undefined) return false;
        slots.release(spare);
        evicted.push(spare);
        return true;
      },
    });
    for (let n = 0; n < 100; n++) taken.push(await slots.acquire({ subject: `s${n}`, project: 'p' }, 1_000));
    expect([slots.bytes, evicted.length, slots.waiting]).toEqual([64_000, 36, 0]);
    taken.length = 0;
    await slots.acquire(one, 1_000);
    expect(slots.bytes).toBe(65_000);
  });

  it('are not waited for forever', async () => {
    const clock = new FakeClock();
    const slots = new SlotPool({ slotBytesMin: 10, bytesMax: 10, evict: () => false, clock });
    await slots.acquire(one, 10);
    const refused = expect(slots.acquire({ subject: 'other', project: 'p' }, 10)).rejects.toMatchObject({
      code: 'overloaded',
    });
    clock.advance(4_500);
    slots.sweep();
    await refused;
  });
});
