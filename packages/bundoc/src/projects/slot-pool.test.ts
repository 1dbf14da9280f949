import { Accounts } from '@bundoc/shared/admission/account';
import type { Hold } from '@bundoc/shared/admission/pool';
import type { ShareKey } from '@bundoc/shared/shares/share-key';
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

  it('are evicted for new callers, even if they become evictable only later', async () => {
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

  it('go to the subject that has used least, there to the project that has used least', async () => {
    const accounts = new Accounts();
    const slots = new SlotPool({ slotBytesMin: 10, bytesMax: 40, evict: () => false, accounts });
    const held = [];
    for (let n = 0; n < 4; n++) held.push(await slots.acquire(one, 10));
    const served: string[] = [];
    const keys = ['much/p', 'much/q', 'little/p'].map((name) => {
      const [subject = '', project = ''] = name.split('/');
      return { subject, project };
    });
    const waiting = keys.map(async (key) => {
      await slots.acquire(key, 10);
      served.push(`${key.subject}/${key.project}`);
    });
    await nextTurn();
    for (const [n, us] of [300, 200, 400].entries()) accounts.charge(accounts.of(keys[n] as ShareKey), us);
    for (const slot of held.slice(1)) {
      slots.release(slot);
      await nextTurn();
    }
    await Promise.all(waiting);
    expect(served).toEqual(['little/p', 'much/q', 'much/p']);
  });

  it('small slots are available while a large one waits, and never delay it', async () => {
    const slots = new SlotPool({ bytesMax: 64_000, slotBytesMin: 1_000, evict: () => false });
    const held = await slots.acquire(one, 50_000);
    let isIn = false;
    const large = slots.acquire({ subject: 'large', project: 'p' }, 20_000).then(() => {
      isIn = true;
    });
    await nextTurn();
    const small = (subject: string) => slots.acquire({ subject, project: 'p' }, 1_000);
    for (let n = 0; n < 8; n++) await small(n % 2 === 0 ? 'a' : 'b');
    expect([slots.waiting, slots.bytes]).toEqual([1, 58_000]);
    const ninth = small('a');
    await nextTurn();
    expect([slots.waiting, isIn]).toEqual([2, false]);
    slots.release(held);
    await Promise.all([large, ninth]);
    expect(slots.bytes).toBe(29_000);
  });

  it('small slots evict others, and use the reserve only if none can be evicted', async () => {
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

  it('are refused to a caller that has waited too long', async () => {
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
