import { createGate } from '@bundoc/shared/admission/gate';
import { enterShare, runInShare } from '@bundoc/shared/shares/share-key';
import { nextTurn } from '@bundoc/shared/testing/timing';
import { describe, expect, it, vi } from 'vitest';
import { KIB, startManager, startManagerOfMany } from '../testing/managed-instances.ts';

describe('an InstanceManager that may open a bounded number of projects', () => {
  it('closes the least recently used project first', async () => {
    const { manager, write, opened } = startManager({ openBytesMax: 80 * KIB });
    for (const project of ['a', 'b', 'a', 'c']) await write(project);
    await expect.poll(() => [opened.get('a'), opened.get('b'), opened.get('c')]).toEqual([1, 0, 1]);
    expect(manager.size).toBe(2);
  });

  it('lets callers wait while every open project is in use, and never opens more', async () => {
    const { manager, write } = startManager({ openBytesMax: 1 });
    const lease = await manager.acquire('a', 'create');
    let done = false;
    const waiting = write('b').then(() => {
      done = true;
    });
    await nextTurn();
    expect(done).toBe(false);
    lease[Symbol.dispose]();
    await waiting;
    expect(manager.size).toBe(1);
  });

  it('evicts no project that is still opening, however many callers wait', async () => {
    const { opened, write } = startManager({ openBytesMax: 1 });
    const projects = ['a', 'b', 'c', 'd', 'e'];
    await Promise.all(projects.map((project) => write(project)));
    await expect
      .poll(() => projects.map((project) => opened.get(project)).toSorted())
      .toEqual([0, 0, 0, 0, 1]);
  });

  it('uses no slot for a project that does not exist, and closes none for it', async () => {
    const { manager, use, isOpen, absent } = await startManagerOfMany({ openBytesMax: 1 });
    using lease = await manager.acquire('a', 'existing');
    expect(lease).toBeDefined();
    for (let n = 0; n < 200; n++) expect(await use(`absent-${n}`)).toBe(false);
    expect([absent(), isOpen('a'), manager.size, manager.openingsWaiting]).toEqual([200, true, 1, 0]);
  });

  it('keeps 1,000 projects in use and their keys, while 50,000 others are used once', async () => {
    const { keys, manager, use, isOpen, openings } = await startManagerOfMany({
      openBytesMax: 2_000 * 32 * KIB,
    });
    const used = Array.from({ length: 1_000 }, (_, n) => `used-${n}`);
    for (const project of [...used, ...used]) await use(project);
    for (let n = 0; n < 50_000; n++) await use(`scan-${n}`);
    expect(used.filter(isOpen)).toHaveLength(1_000);
    expect(used.filter((project) => keys.has(project))).toHaveLength(1_000);
    expect([manager.size, openings()]).toEqual([2_000, 51_000]);
    expect(keys.size).toBeLessThanOrEqual(manager.size + 1_000);
  });

  it('opens 32 projects of a lone subject at a time, in the order of their requests', async () => {
    const { manager, use, held, openings, runningMax } = await startManagerOfMany();
    const gate = Promise.withResolvers<void>();
    held.gate = gate.promise;
    const order: number[] = [];
    const asked = Array.from({ length: 100 }, (_, n) => n);
    const all = Promise.all(asked.map((n) => use(`p${n}`).then(() => order.push(n))));
    await expect.poll(openings).toBe(32);
    await nextTurn();
    expect([openings(), manager.openingsWaiting]).toEqual([32, 68]);
    gate.resolve();
    await all;
    expect([openings(), runningMax(), manager.size]).toEqual([100, 32, 100]);
    expect(order).toEqual(asked);
  });

  it('opens a project of each further subject at once, up to 64 in all, even if no other opening ends', async () => {
    const { manager, use, held, openings } = await startManagerOfMany();
    const gate = Promise.withResolvers<void>();
    held.gate = gate.promise;
    const useAs = (subject: string, project: string) => runInShare({ subject, project }, () => use(project));
    const all = Array.from({ length: 100 }, (_, n) => useAs(`flood-${n % 4}`, `p${n}`));
    await expect.poll(openings).toBe(32);
    for (let n = 0; n < 33; n++) all.push(useAs(`modest-${n}`, `mine-${n}`));
    await expect.poll(openings).toBe(64);
    await nextTurn();
    expect([openings(), manager.openingsWaiting]).toEqual([64, 100 - 32 + 1]);
    gate.resolve();
    await Promise.all(all);
    expect(manager.size).toBe(133);
  });

  it('gives the places of a request back while it waits for an opening', async () => {
    const { clock, use, held, openings } = await startManagerOfMany();
    await use('open');
    const { places } = createGate(clock, 1);
    const gate = Promise.withResolvers<void>();
    held.gate = gate.promise;
    const ask = async (project: string) => {
      const key = { subject: 's', project };
      using hold = await places.take(key, 8);
      enterShare(key, { leave: () => hold.resize(0), enter: async () => hold.resize(8) });
      await use(project);
      return places.held;
    };
    const asked = ask('closed');
    await expect.poll(openings).toBe(2);
    expect([places.held, await ask('open')]).toEqual([0, 8]);
    gate.resolve();
    expect([await asked, places.held]).toEqual([8, 0]);
  });

  it('checks a part of the open projects each second, and all of them within a minute', async () => {
    const { clock, keys, manager, use } = await startManagerOfMany({ idleTtlMs: 1_000 });
    for (let n = 0; n < 1_200; n++) await use(`p${n}`);
    const looks = vi.spyOn(keys, 'has');
    manager.sweep();
    expect(looks.mock.calls.length).toBeLessThanOrEqual(20);
    clock.advance(1_000);
    for (let second = 0; second < 61; second++) manager.sweep();
    expect(manager.size).toBe(0);
  });
});

describe('an InstanceManager whose memory is bounded', () => {
  it('keeps open as many projects as fit, and measures a project again after each commit', async () => {
    const { manager, memory, use, isOpen } = await startManagerOfMany({ openBytesMax: 1_000 * KIB });
    memory.set('large', 300 * KIB);
    for (const project of ['large', 'a', 'b', 'c']) await use(project);
    expect(manager.bytes).toBe((300 + 4 * 32) * KIB);
    {
      using lease = await manager.acquire('c', 'existing');
      expect(lease).toBeDefined();
      memory.set('c', 700 * KIB);
    }
    expect(['large', 'a', 'b', 'c'].map(isOpen)).toEqual([false, true, true, true]);
    expect(manager.bytes).toBe((700 + 3 * 32) * KIB);
  });

  it('counts the memory of projects in steps of 4 KiB', async () => {
    const { manager, memory, use } = await startManagerOfMany({ openBytesMax: 1_000 * KIB });
    for (const [bytes, counted] of [
      [1, 4],
      [4 * KIB, 4],
      [4 * KIB + 1, 8],
      [0, 0],
    ] as const) {
      memory.set('a', bytes);
      await use('a');
      expect(manager.bytes).toBe((32 + counted) * KIB);
    }
  });

  it('first closes a project without a use since the latest sweep, however often it was used before', async () => {
    const { manager, use, isOpen } = await startManagerOfMany({ openBytesMax: 2 * 32 * KIB });
    for (const project of ['a', 'b', 'b', 'a', 'a']) await use(project);
    manager.sweep();
    await use('b');
    await use('c');
    expect(['a', 'b', 'c'].map(isOpen)).toEqual([false, true, true]);
    manager.sweep();
    await use('c');
    manager.sweep();
    expect(manager.peekStore('b')).toBeDefined();
    await use('a');
    expect(['a', 'b', 'c'].map(isOpen)).toEqual([true, true, false]);
  });

  it('asks the holder of a project to release it when others wait for memory, or when its key is gone', async () => {
    const { manager, keys, use } = await startManagerOfMany({ openBytesMax: 32 * KIB });
    const lease = await manager.acquire('a', 'existing');
    expect(lease?.isUsable()).toBe(true);
    const waiting = use('b');
    await nextTurn();
    expect(lease?.isUsable()).toBe(false);
    lease?.[Symbol.dispose]();
    await waiting;
    const next = await manager.acquire('a', 'existing');
    expect(next?.isUsable()).toBe(true);
    keys.evict('a');
    expect(next?.isUsable()).toBe(false);
    next?.[Symbol.dispose]();
  });

  it('opens a project larger than all memory, and no other until that one is released', async () => {
    const { manager, memory, use, isOpen } = await startManagerOfMany({ openBytesMax: 100 * KIB });
    memory.set('large', 10_000 * KIB);
    const lease = await manager.acquire('large', 'existing');
    const waiting = use('a');
    await nextTurn();
    expect([isOpen('large'), isOpen('a'), manager.openingsWaiting]).toEqual([true, false, 1]);
    lease?.[Symbol.dispose]();
    await waiting;
    expect([isOpen('large'), isOpen('a'), manager.bytes]).toEqual([false, true, 32 * KIB]);
  });

  it('frees twice the stored size of a project before it opens it', async () => {
    const storedBytes = async (project: string) => (project === 'large' ? 200 * KIB : 0);
    const { manager, memory, use, isOpen, held } = await startManagerOfMany({
      openBytesMax: 500 * KIB,
      storedBytes,
    });
    for (const project of ['a', 'b', 'c']) await use(project);
    const gate = Promise.withResolvers<void>();
    held.gate = gate.promise;
    memory.set('large', 252 * KIB);
    const opening = use('large');
    await expect.poll(() => manager.bytes).toBe((400 + 32 + 2 * 32) * KIB);
    gate.resolve();
    await opening;
    expect(manager.bytes).toBe((252 + 32 + ['a', 'b', 'c'].filter(isOpen).length * 32) * KIB);
  });
});
