import { AppError } from '@bundoc/shared/contract/app-error';
import { createLogger } from '@bundoc/shared/runtime/logger';
import { runInShare } from '@bundoc/shared/shares/share-key';
import { describe, expect, it, vi } from 'vitest';
import type { FileChange } from '../engine/files/disk/disk.ts';
import type { ProjectStore } from '../engine/port.ts';
import type { Projects } from '../engine/projects.ts';
import { newPlace, openInstances, TTL_MS } from '../testing/open-instances.ts';
import { SimulatedDisk } from '../testing/simulated-disk.ts';
import { closeEngine, openTestStore } from '../testing/test-engine.ts';
import { put, ref } from '../testing/writes.ts';
import type { InstanceManagerOptions } from './instance-manager.ts';
import { ProjectUpkeep } from './project-upkeep.ts';

function start(options: Partial<InstanceManagerOptions> = {}) {
  const place = newPlace();
  const { clock, disk } = place;
  /** Stores that are open now, by project, to see that there is never more than one of a project. */
  const opened = new Map<string, number>();
  let openings = 0;
  let closings = 0;
  let isListBroken = false;
  const { instances: manager, ...others } = openInstances(place, {
    openStore: async (project, { cipher }) => {
      openings++;
      opened.set(project, (opened.get(project) ?? 0) + 1);
      const store = await openTestStore(project, `/projects/${project}`, disk, cipher, clock);
      if (isListBroken) store.list = () => Promise.reject(new AppError('storage_unavailable'));
      const close = store[Symbol.asyncDispose].bind(store);
      store[Symbol.asyncDispose] = async () => {
        closings++;
        await close();
        opened.set(project, (opened.get(project) ?? 0) - 1);
      };
      return store;
    },
    ...options,
  });
  return {
    ...place,
    ...others,
    manager,
    opened,
    openings: () => openings,
    closings: () => closings,
    breakLists: (isBroken: boolean) => {
      isListBroken = isBroken;
    },
  };
}

/** As many projects as are asked for, each with a key and a store that holds nothing but takes memory. */
async function startMany(options: Partial<InstanceManagerOptions> = {}) {
  const place = newPlace();
  const seed = openInstances(place);
  await seed.write('seed');
  const { keys } = seed;
  const { file, cipher } = (await seed.projects.open('seed'))!;
  await seed.instances[Symbol.asyncDispose]();
  const memory = new Map<string, number>();
  let openings = 0;
  let absent = 0;
  let running = 0;
  let runningMax = 0;
  const held: { gate: Promise<void> | undefined } = { gate: undefined };
  const open = async (project: string) => {
    if (project.startsWith('absent')) {
      absent++;
      return undefined;
    }
    if (!place.service.keys.has(`${project}-dek`)) place.service.put(`${project}-dek`);
    return { file, cipher, keys: [await keys.get(project)] as const };
  };
  const { instances: manager } = openInstances(place, {
    keys,
    projects: Object.assign(Object.create(seed.projects) as Projects, {
      open,
      keepWrappings: async () => file,
    }),
    openStore: async (project) => {
      openings++;
      runningMax = Math.max(runningMax, ++running);
      await held.gate;
      running--;
      return {
        pendingReencryption: 0,
        failed: false,
        get memoryBytes() {
          return memory.get(project) ?? 0;
        },
        list: async () => ({ documents: [], unreadable: [], next: undefined }),
        checkpoint: async () => undefined,
        [Symbol.asyncDispose]: async () => undefined,
      } as unknown as ProjectStore;
    },
    ...options,
  });
  const use = async (project: string) => {
    const lease = await manager.acquire(project, 'existing');
    lease?.[Symbol.dispose]();
    return lease !== undefined;
  };
  const isOpen = (project: string) => manager.stateOf(project).isOpen;
  return {
    ...place,
    keys,
    manager,
    memory,
    use,
    isOpen,
    held,
    openings: () => openings,
    absent: () => absent,
    runningMax: () => runningMax,
  };
}

const KIB = 1_024;

const settle = () => new Promise((resolve) => setImmediate(resolve));

describe('InstanceManager', () => {
  it('gives undefined for a project that does not exist, and asks for no key', async () => {
    const { service, manager } = start();
    expect(await manager.acquire('p', 'existing')).toBeUndefined();
    expect(service.exports).toBe(0);
  });

  it('opens a project once for many callers at once, and mints one key', async () => {
    const { service, write, openings } = start();
    await Promise.all(Array.from({ length: 50 }, (_, n) => write('p', `doc-${n}`)));
    expect(openings()).toBe(1);
    expect(service.creations).toBe(1);
  });

  it('keeps a bounded number open; the one used longest ago closes first', async () => {
    const { manager, write, opened } = start({ openBytesMax: 80 * KIB });
    for (const project of ['a', 'b', 'a', 'c']) await write(project);
    await expect.poll(() => [opened.get('a'), opened.get('b'), opened.get('c')]).toEqual([1, 0, 1]);
    expect(manager.size).toBe(2);
  });

  it('lets callers wait for room when every open project is in use, and never opens more', async () => {
    const { manager, write } = start({ openBytesMax: 1 });
    const lease = await manager.acquire('a', 'create');
    let done = false;
    const waiting = write('b').then(() => {
      done = true;
    });
    await settle();
    expect(done).toBe(false);
    lease[Symbol.dispose]();
    await waiting;
    expect(manager.size).toBe(1);
  });

  it('makes room with no project that somebody is just opening, however many want it', async () => {
    const { opened, write } = start({ openBytesMax: 1 });
    const projects = ['a', 'b', 'c', 'd', 'e'];
    await Promise.all(projects.map((project) => write(project)));
    await expect
      .poll(() => projects.map((project) => opened.get(project)).toSorted())
      .toEqual([0, 0, 0, 0, 1]);
  });

  it('gives no place to a project that does not exist, and closes none for it', async () => {
    const { manager, use, isOpen, absent } = await startMany({ openBytesMax: 1 });
    using lease = await manager.acquire('a', 'existing');
    expect(lease).toBeDefined();
    for (let n = 0; n < 200; n++) expect(await use(`absent-${n}`)).toBe(false);
    expect([absent(), isOpen('a'), manager.size, manager.openingsWaiting]).toEqual([200, true, 1, 0]);
  });

  it('keeps 1,000 projects open that are in use, and their keys, while 50,000 others are used once', async () => {
    const { keys, manager, use, isOpen, openings } = await startMany({ openBytesMax: 2_000 * 32 * KIB });
    const used = Array.from({ length: 1_000 }, (_, n) => `used-${n}`);
    for (const project of [...used, ...used]) await use(project);
    for (let n = 0; n < 50_000; n++) await use(`scan-${n}`);
    expect(used.filter(isOpen)).toHaveLength(1_000);
    expect(used.filter((project) => keys.has(project))).toHaveLength(1_000);
    expect([manager.size, openings()]).toEqual([2_000, 51_000]);
    expect(keys.size).toBeLessThanOrEqual(manager.size + 1_000);
  });

  it('keeps open what has room in its memory, and looks again after each commit how much that is', async () => {
    const { manager, memory, use, isOpen } = await startMany({ openBytesMax: 1_000 * KIB });
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

  it('counts what projects have in memory in steps of 4 KiB', async () => {
    const { manager, memory, use } = await startMany({ openBytesMax: 1_000 * KIB });
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

  it('closes the project first whose last use was before the latest sweep, however often it was used then', async () => {
    const { manager, use, isOpen } = await startMany({ openBytesMax: 2 * 32 * KIB });
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

  it('tells who holds a project that it is of no further use while others wait for room, or without its key', async () => {
    const { manager, keys, use } = await startMany({ openBytesMax: 32 * KIB });
    const lease = await manager.acquire('a', 'existing');
    expect(lease?.isUsable()).toBe(true);
    const waiting = use('b');
    await settle();
    expect(lease?.isUsable()).toBe(false);
    lease?.[Symbol.dispose]();
    await waiting;
    const next = await manager.acquire('a', 'existing');
    expect(next?.isUsable()).toBe(true);
    keys.evict('a');
    expect(next?.isUsable()).toBe(false);
    next?.[Symbol.dispose]();
  });

  it('opens one project, however large, and no other beside it until it can be spared', async () => {
    const { manager, memory, use, isOpen } = await startMany({ openBytesMax: 100 * KIB });
    memory.set('large', 10_000 * KIB);
    const lease = await manager.acquire('large', 'existing');
    const waiting = use('a');
    await settle();
    expect([isOpen('large'), isOpen('a'), manager.openingsWaiting]).toEqual([true, false, 1]);
    lease?.[Symbol.dispose]();
    await waiting;
    expect([isOpen('large'), isOpen('a'), manager.bytes]).toEqual([false, true, 32 * KIB]);
  });

  it('makes room for twice what is stored of a project before it opens it', async () => {
    const storedBytes = async (project: string) => (project === 'large' ? 200 * KIB : 0);
    const { manager, memory, use, isOpen, held } = await startMany({ openBytesMax: 500 * KIB, storedBytes });
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

  it('opens 16 projects at a time, in the order in which they were asked for', async () => {
    const { manager, use, held, openings, runningMax } = await startMany();
    const gate = Promise.withResolvers<void>();
    held.gate = gate.promise;
    const all = Promise.all(Array.from({ length: 100 }, (_, n) => use(`p${n}`)));
    await expect.poll(openings).toBe(16);
    await settle();
    expect([openings(), manager.openingsWaiting]).toEqual([16, 84]);
    gate.resolve();
    await all;
    expect([openings(), runningMax(), manager.size]).toEqual([100, 16, 100]);
  });

  it('opens the project of one subject before the many of another that wait already', async () => {
    const { use, held, openings } = await startMany();
    const gate = Promise.withResolvers<void>();
    held.gate = gate.promise;
    const order: string[] = [];
    const useAs = (subject: string, project: string) =>
      runInShare({ subject, project }, () => use(project)).then(() => order.push(subject));
    const flood = Array.from({ length: 100 }, (_, n) => useAs('flood', `p${n}`));
    await expect.poll(openings).toBe(16);
    const modest = useAs('modest', 'mine');
    await settle();
    gate.resolve();
    await Promise.all([modest, ...flood]);
    expect(order.indexOf('modest')).toBeLessThan(2 * 16);
  });

  it('looks at a part of the open projects each second, and at all of them within a minute', async () => {
    const { clock, keys, manager, use } = await startMany({ idleTtlMs: 1_000 });
    for (let n = 0; n < 1_200; n++) await use(`p${n}`);
    const looks = vi.spyOn(keys, 'has');
    manager.sweep();
    expect(looks.mock.calls.length).toBeLessThanOrEqual(20);
    clock.advance(1_000);
    for (let second = 0; second < 61; second++) manager.sweep();
    expect(manager.size).toBe(0);
  });

  it('closes a project after its first use whose key is withdrawn while it is opened', async () => {
    const { keys, manager, use, held, openings } = await startMany();
    const gate = Promise.withResolvers<void>();
    held.gate = gate.promise;
    const opening = use('p');
    await expect.poll(openings).toBe(1);
    keys.evict('p');
    manager.sweep();
    gate.resolve();
    expect(await opening).toBe(true);
    expect(manager.size).toBe(0);
  });

  it('closes every project whose key is withdrawn at once, however many are open', async () => {
    const { keys, manager, use, isOpen } = await startMany();
    for (let n = 0; n < 200; n++) await use(`p${n}`);
    keys.evict('p150');
    manager.sweep();
    expect([isOpen('p150'), manager.size]).toEqual([false, 199]);
    keys.evictAll();
    manager.sweep();
    expect(manager.size).toBe(0);
  });

  it('closes a project that was idle too long, but none in use', async () => {
    const { clock, manager, write, opened } = start({ idleTtlMs: 1_000 });
    await write('a');
    const lease = await manager.acquire('b', 'create');
    clock.advance(1_000);
    manager.sweep();
    await expect.poll(() => [opened.get('a'), opened.get('b')]).toEqual([0, 1]);
    lease[Symbol.dispose]();
  });

  it('reads and writes without the key service until the key’s time is over, then refuses, then recovers', async () => {
    const { clock, service, manager, write } = start();
    await write('p');
    service.failure = new AppError('kms_unavailable', { retryAfterS: 2 });
    clock.advance(TTL_MS - 1);
    await write('p', 'b');
    clock.advance(1);
    await expect(write('p', 'c')).rejects.toMatchObject({ code: 'kms_unavailable', retryAfterS: 2 });
    await expect(manager.acquire('p', 'existing')).rejects.toMatchObject({ code: 'kms_unavailable' });
    service.failure = undefined;
    clock.advance(1_000);
    using lease = await manager.acquire('p', 'existing');
    expect(await lease?.store.get(ref('b'))).toBeDefined();
  });

  it('closes a project, with everything readable in it, when its key’s time is over', async () => {
    const { clock, manager, write, opened, keys } = start();
    await write('p');
    clock.advance(TTL_MS);
    manager.sweep();
    await settle();
    expect([manager.size, opened.get('p'), keys.size]).toEqual([0, 0, 0]);
  });

  it('lets a request that has begun finish when the key ends, and opens no second writer meanwhile', async () => {
    const { clock, manager, write, opened } = start();
    const lease = await manager.acquire('p', 'create');
    clock.advance(TTL_MS);
    manager.sweep();
    let done = false;
    const next = write('p', 'b').then(() => {
      done = true;
    });
    await settle();
    expect([done, opened.get('p')]).toEqual([false, 1]);
    await lease.store.commit([put('a', '{"v":1}')]);
    lease[Symbol.dispose]();
    await next;
    expect(opened.get('p')).toBe(1);
  });

  it('continues with the same store when its key is fetched again, and keeps the new wrapping', async () => {
    const { clock, service, disk, write, openings } = start();
    await write('p');
    service.keys.get('p-dek')!.wrapped = Buffer.alloc(69, 9).toString('base64');
    clock.advance(TTL_MS * 0.8);
    await write('p');
    await settle();
    await write('p');
    await settle();
    expect(openings()).toBe(1);
    expect(String(disk.files().get('/projects/p/project.json'))).toContain(
      Buffer.alloc(69, 9).toString('base64'),
    );
    clock.advance(TTL_MS * 0.5);
    service.failure = new AppError('kms_unavailable');
    await write('p');
  });

  it('keeps the new wrapping of an older version as well, when that is fetched again', async () => {
    const { clock, service, disk, write, keys, openings } = start();
    await write('p');
    await keys.rotate('p', 1);
    await write('p');
    await settle();
    const opened = openings();
    service.keys.get('p-dek')!.before![0]!.wrapped = Buffer.alloc(69, 9).toString('base64');
    clock.advance(TTL_MS * 0.8);
    await write('p');
    await settle();
    await write('p');
    await settle();
    expect(openings()).toBe(opened);
    expect(JSON.parse(String(disk.files().get('/projects/p/project.json'))).versions[0].wrapped).toBe(
      Buffer.alloc(69, 9).toString('base64'),
    );
  });

  it('stops at once when the key service has another key', async () => {
    const { clock, service, write } = start();
    await write('p');
    service.put('p-dek');
    clock.advance(TTL_MS * 0.8);
    await write('p');
    await settle();
    await expect(write('p')).rejects.toMatchObject({ code: 'key_mismatch' });
  });

  it('closes a failed store once, and opens it again', async () => {
    const { disk, write, openings, closings, opened } = start();
    const { writeFiles } = disk;
    await write('p');
    const tried = Promise.withResolvers<void>();
    disk.writeFiles = async (files) => {
      tried.resolve();
      return files.map(() => new AppError('storage_unavailable'));
    };
    // It is in the log, so it is acknowledged.
    await write('p', 'b');
    await tried.promise;
    await settle();
    disk.writeFiles = writeFiles;
    await write('p');
    expect([openings(), closings(), opened.get('p')]).toEqual([2, 1, 1]);
  });

  it('keeps a store open whose write the log refused, since nothing of it is in doubt', async () => {
    const { disk, write, openings, opened } = start();
    await write('p');
    await settle();
    disk.failAt({ operation: 1, when: 'before', what: 'storage_unavailable' });
    await expect(write('p', 'b')).rejects.toMatchObject({ code: 'storage_unavailable' });
    await write('p', 'b');
    expect([openings(), opened.get('p')]).toEqual([1, 1]);
  });

  it('closes a store that opens but whose definitions cannot be read, and opens it again', async () => {
    const { clock, write, manager, opened, breakLists } = start({ idleTtlMs: 1 });
    await write('p');
    clock.advance(1);
    manager.sweep();
    await expect.poll(() => opened.get('p')).toBe(0);
    breakLists(true);
    await expect(write('p')).rejects.toMatchObject({ code: 'storage_unavailable' });
    expect(opened.get('p')).toBe(0);
    breakLists(false);
    await write('p');
    expect(opened.get('p')).toBe(1);
  });

  it('waits for running requests when it is closed, and takes no new ones', async () => {
    const { manager, opened, write } = start();
    const lease = await manager.acquire('p', 'create');
    let closed = false;
    const closing = manager[Symbol.asyncDispose]().then(() => {
      closed = true;
    });
    await settle();
    expect(closed).toBe(false);
    await expect(write('q')).rejects.toMatchObject({ code: 'overloaded' });
    lease[Symbol.dispose]();
    await closing;
    expect(opened.get('p')).toBe(0);
  });

  it('takes up a rotated key: writes under the new version, reads the old ones, re-seals them, without a refused request', async () => {
    const { clock, service, keys, logger, manager, disk, write } = start();
    const upkeep = new ProjectUpkeep({ instances: manager, logger, resealsMax: 5 });
    for (let n = 0; n < 12; n++) await write('p', `doc-${n}`);
    await Promise.all([keys.rotate('p', 1), keys.rotate('p', 1)]);
    expect(service.keys.get('p-dek')?.version).toBe(2);
    await write('p', 'after');
    const file = JSON.parse(String(disk.files().get('/projects/p/project.json')));
    expect(file.versions.map(({ version }: { version: number }) => version)).toEqual([1, 2]);
    expect(file.nameKey).toHaveLength(2);
    expect(manager.pendingReencryption).toBe(12);
    while (manager.pendingReencryption > 0) await upkeep.run();
    clock.advance(TTL_MS);
    using lease = await manager.acquire('p', 'existing');
    for (let n = 0; n < 12; n++) expect(await lease?.store.get(ref(`doc-${n}`))).toBeDefined();
    expect(await lease?.store.get(ref('after'))).toBeDefined();
  });

  it('logs that documents could not be re-sealed, counts them as pending, and re-seals them when they are readable again', async () => {
    const { clock, keys, manager, disk, write } = start();
    const lines: Record<string, unknown>[] = [];
    const destination = { write: (line: string) => void lines.push(JSON.parse(line)) };
    const logger = createLogger({ service: 'bundoc', level: 'warn', destination });
    const upkeep = new ProjectUpkeep({ instances: manager, logger, resealsMax: 5 });
    for (let n = 0; n < 3; n++) await write('p', `doc-${n}`);
    await keys.rotate('p', 1);
    clock.advance(TTL_MS);
    manager.sweep();
    await write('p', 'after');
    disk.failing = (operation) => (operation.startsWith('read /projects/p/docs') ? 'before' : undefined);
    for (let n = 0; n < 3; n++) await upkeep.run();
    expect(lines).toMatchObject([
      { level: 'warn', project: 'p', skipped: 3, msg: expect.stringContaining('could not be re-sealed') },
    ]);
    expect(manager.pendingReencryption).toBe(3);
    disk.failing = undefined;
    await upkeep.run();
    expect(manager.pendingReencryption).toBe(3);
    clock.advance(60_000);
    while (manager.pendingReencryption > 0) await upkeep.run();
  });

  it('refuses a key whose version went back', async () => {
    const { clock, service, keys, write } = start();
    await write('p');
    const first = service.keys.get('p-dek')!;
    await keys.rotate('p', 1);
    await write('p');
    service.keys.set('p-dek', first);
    clock.advance(TTL_MS);
    await expect(write('p')).rejects.toMatchObject({ code: expect.stringMatching(/key_m/) });
  });

  it('closes a project whose key was dropped once its last user has left, and opens it under no earlier key', async () => {
    const { manager, keys, service, write, closings } = start();
    await write('p');
    const lease = await manager.acquire('p', 'create');
    keys.evict('p');
    manager.sweep();
    expect(manager.size).toBe(0);
    await lease.store.commit([put('b', '{"v":2}')]);
    expect(closings()).toBe(0);
    lease[Symbol.dispose]();
    await expect.poll(closings).toBe(1);
    service.failure = new AppError('kms_unavailable');
    await expect(write('p', 'c')).rejects.toMatchObject({ code: 'kms_unavailable' });
  });

  describe('waiting for a change', () => {
    const never = new AbortController().signal;

    it('keeps no project open, and ends with the write of anyone who opens it again', async () => {
      const { clock, manager, write, closings } = start({ idleTtlMs: 1_000 });
      await write('p');
      const waiting = manager.waitForChange('p', 1, never);
      clock.advance(1_000);
      manager.sweep();
      await expect.poll(closings).toBe(1);
      expect(manager.size).toBe(0);
      await write('p', 'b');
      expect(await waiting).toBe(true);
    });

    it('does not end when the project is opened and nothing has changed', async () => {
      const { clock, manager, write, closings } = start({ idleTtlMs: 1_000 });
      await write('p');
      const stop = new AbortController();
      const waiting = manager.waitForChange('p', 1, stop.signal);
      clock.advance(1_000);
      manager.sweep();
      await expect.poll(closings).toBe(1);
      {
        using lease = await manager.acquire('p', 'existing');
        expect(await lease?.store.position()).toBe(1);
      }
      await settle();
      stop.abort();
      expect(await waiting).toBe(false);
    });

    it('ends when the signal says so, whether the project is open or not', async () => {
      const { manager, write } = start();
      await write('p');
      const stop = new AbortController();
      const both = [
        manager.waitForChange('p', 1, stop.signal),
        manager.waitForChange('closed', 0, stop.signal),
      ];
      await settle();
      stop.abort();
      expect(await Promise.all(both)).toEqual([false, false]);
      expect(await manager.waitForChange('p', 0, stop.signal)).toBe(false);
    });

    it('opens a closed project that others may have written to', async () => {
      const { clock, manager, write, closings, openings } = start({ idleTtlMs: 1_000, isShared: true });
      await write('p');
      const stop = new AbortController();
      const waiting = manager.waitForChange('p', 1, stop.signal);
      clock.advance(1_000);
      manager.sweep();
      await expect.poll(closings).toBe(1);
      await expect.poll(openings).toBe(2);
      stop.abort();
      expect(await waiting).toBe(false);
    });
  });
});

describe('the end of all projects', () => {
  it('waits for no more files than are being written; the others are in the log', async () => {
    const disk = new SimulatedDisk('/', '/projects');
    const isDocument = ({ path }: FileChange) => path.startsWith('/projects/p/docs/');
    const rounds: (() => void)[] = [];
    const { writeFiles } = disk;
    disk.writeFiles = async (files) => {
      if (files.some(isDocument)) await new Promise<void>((resolve) => rounds.push(resolve));
      return writeFiles.call(disk, files);
    };
    const place = newPlace(disk);
    const { instances, write } = openInstances(place);
    const ids = Array.from({ length: 20 }, (_, n) => `d${n}`);
    for (const id of ids) await write('p', id);
    await instances[Symbol.asyncDispose]();
    let isOver = false;
    const over = closeEngine(disk).then(() => {
      isOver = true;
    });
    // What is being written must be over before another process may write there.
    for (let turn = 0; turn < 50; turn++) await settle();
    expect([isOver, rounds.length]).toEqual([false, 1]);
    rounds[0]?.();
    await over;
    expect(rounds).toHaveLength(1);
    const written = [...disk.files().keys()].filter((path) => isDocument({ path, content: undefined }));
    expect(written.length).toBeLessThan(ids.length);

    disk.writeFiles = writeFiles;
    const { instances: next } = openInstances(place);
    using lease = await next.acquire('p', 'existing');
    for (const id of ids) expect(await lease?.store.get(ref(id))).toBeDefined();
  });
});
