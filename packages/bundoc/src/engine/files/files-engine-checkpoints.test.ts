import { setImmediate } from 'node:timers/promises';
import { AppError } from '@bundoc/shared/contract/app-error';
import { describe, expect, it } from 'vitest';
import { beforeLogReads } from '../../testing/before-log-reads.ts';
import { folderOf, Process } from '../../testing/files-process.ts';
import type { SimulatedDisk } from '../../testing/simulated-disk.ts';
import { put, ref } from '../../testing/writes.ts';

/** Holds the next rename to a project's catalog. */
function holdCatalog(disk: SimulatedDisk, project: string) {
  const { rename } = disk;
  const reached = Promise.withResolvers<void>();
  const released = Promise.withResolvers<void>();
  disk.rename = async (from, to) => {
    if (to === `${folderOf(project)}/catalog`) {
      disk.rename = rename;
      reached.resolve();
      await released.promise;
    }
    return rename.call(disk, from, to);
  };
  return { reached: reached.promise, release: released.resolve };
}

describe('a checkpoint', () => {
  it.each(['the folder of the project', 'the folder of the log'])(
    'removes no file in %s whose parts it does not cover',
    async (where) => {
      const process = new Process();
      await process.create('p');
      const engine = await process.engine;
      const store = await process.open('p');
      if (where === 'the folder of the log')
        process.disk.tamper('/projects/p/carried', Buffer.from('no folder'));
      await store.commit([put('a', '{}')]);
      const { reached, release } = holdCatalog(process.disk, 'p');
      const checkpoint = store.checkpoint();
      await reached;
      await store.commit([put('b', '{}')]);
      await engine.carryAll();
      release();
      await checkpoint;
      const folder = where === 'the folder of the log' ? '/log/stuck' : '/projects/p/carried';
      expect(process.namesIn(folder)).toHaveLength(1);
      expect(await process.after('synced only').read('p')).toBe('ab');
      // The next one covers them.
      await store.checkpoint();
      expect(process.namesIn(folder)).toEqual([]);
      await store[Symbol.asyncDispose]();
      expect(await process.after('synced only').read('p')).toBe('ab');
    },
  );

  it('a checkpoint keeps a file of carried parts that arrives while it removes the last one', async () => {
    const process = new Process();
    await process.write('p', put('a', '{}'));
    const { disk } = process;
    const engine = await process.engine;
    await engine.carryAll();
    const store = await process.open('p');
    await store.commit([put('b', '{}')]);
    const { reached, release } = holdCatalog(disk, 'p');
    const { removeTree } = disk;
    let carrying: Promise<unknown> | undefined;
    disk.removeTree = async (path) => {
      carrying ??= engine.carryAll();
      for (let turn = 0; turn < 200; turn++) await setImmediate();
      return removeTree.call(disk, path);
    };
    const checkpoint = store.checkpoint();
    await reached;
    await store.commit([put('c', '{}')]);
    release();
    await checkpoint;
    await carrying;
    expect(process.namesIn('/projects/p/carried')).toHaveLength(1);
    expect(await process.after('synced only').read('p')).toBe('abc');
  });

  it('a checkpoint fails when its store fails meanwhile, and leaves the parts to the next opening', async () => {
    const process = new Process();
    await process.write('p', put('a', '{}'));
    const engine = await process.engine;
    await engine.carryAll();
    const store = await process.open('p');
    await store.commit([put('b', '{}')]);
    const { reached, release } = holdCatalog(process.disk, 'p');
    const checkpoint = store.checkpoint();
    await reached;
    store.fail(new AppError('storage_unavailable'));
    const uncovered = engine.stats.uncoveredBytes;
    expect(uncovered).toBeGreaterThan(0);
    release();
    await expect(checkpoint).rejects.toMatchObject({ code: 'storage_unavailable' });
    expect([engine.stats.uncoveredBytes, process.namesIn('/projects/p/carried').length]).toEqual([
      uncovered,
      1,
    ]);
    await store[Symbol.asyncDispose]();
    expect([await process.read('p'), await process.after('synced only').read('p')]).toEqual(['ab', 'ab']);
  });

  it('a checkpoint that writes documents again after a failed sync keeps their later states', async () => {
    const process = new Process();
    const { disk } = process;
    let isNext = false;
    let isLater = false;
    beforeLogReads(disk, async () => {
      if (!isNext) return;
      [isNext, isLater] = [false, true];
      // The newest part of the log is known by then, and none has been read.
      await store.commit([put('a', '{"v":2}')]);
      await store.files.whenWritten();
    });
    await process.create('p');
    const store = await process.open('p');
    await store.commit([put('a', '{"v":1}')]);
    await store.files.whenWritten();
    const { syncFiles } = disk;
    disk.syncFiles = async (paths, folders) => {
      if (!paths.some((path) => path.includes('/docs/'))) return syncFiles.call(disk, paths, folders);
      disk.syncFiles = syncFiles;
      isNext = true;
      throw new AppError('storage_unavailable');
    };
    await store.checkpoint();
    await store.files.whenWritten();
    expect(isLater).toBe(true);
    expect((await store.get(ref('a')))?.text.toString()).toContain('"v":2');
    await store.checkpoint();
    await store[Symbol.asyncDispose]();
    const again = await process.after('synced only').open('p');
    expect((await again.get(ref('a')))?.text.toString()).toContain('"v":2');
  });

  it('a checkpoint whose sync fails twice on a full disk fails the store, and loses nothing', async () => {
    const process = new Process();
    await process.write('p', put('a', '{}'));
    const { disk } = process;
    const store = await process.open('p');
    const { syncFiles } = disk;
    let left = 2;
    disk.syncFiles = async (paths, folders) => {
      if (left > 0 && paths.some((path) => path.includes('/docs/'))) {
        left--;
        throw new AppError('disk_full');
      }
      return syncFiles.call(disk, paths, folders);
    };
    await expect(store.checkpoint()).rejects.toMatchObject({ code: 'storage_unavailable' });
    expect([left, store.failed]).toEqual([0, true]);
    await store[Symbol.asyncDispose]();
    const next = await process.open('p');
    await next.checkpoint();
    await next[Symbol.asyncDispose]();
    const later = await process.after('synced only').open('p');
    expect((await later.get(ref('a')))?.text.toString()).toContain('"_id":"a"');
  });

  it('waits for a running one, and is shared by all callers that ask meanwhile', async () => {
    const process = new Process();
    await process.create('p');
    const { disk } = process;
    const store = await process.open('p');
    await store.commit([put('a', '{}')]);
    const { rename } = disk;
    const reached = Promise.withResolvers<void>();
    const released = Promise.withResolvers<void>();
    let catalogs = 0;
    disk.rename = async (from, to) => {
      if (to === '/projects/p/catalog') {
        reached.resolve();
        await released.promise;
        // So that each further one would have something to cover.
        await store.commit([put(`later-${++catalogs}`, '{}')]);
      }
      return rename.call(disk, from, to);
    };
    const checkpoints = [store.checkpoint()];
    await reached.promise;
    for (let n = 0; n < 20; n++) {
      await store.commit([put('b', `{"v":${n}}`)]);
      checkpoints.push(store.checkpoint());
    }
    released.resolve();
    await Promise.all(checkpoints);
    await (await process.engine)[Symbol.asyncDispose]();
    expect(catalogs).toBe(2);
  });

  it.each([1, 2])(
    'a checkpoint replaces each catalog separately when sync number %i of several catalogs fails',
    async (number) => {
      const process = new Process();
      const { disk } = process;
      const projects = ['p', 'q'];
      for (const project of projects) await process.create(project);
      const stores = await Promise.all(projects.map((project) => process.open(project)));
      for (const store of stores) await store.commit([put('a', '{}')]);
      const before = stores.map(({ covered }) => covered);
      const { syncFiles } = disk;
      let shared = 0;
      disk.syncFiles = async (paths, folders) => {
        const areCatalogs = paths.every((path) => path.startsWith('/tmp/') || path.endsWith('/catalog'));
        if (areCatalogs && paths.length === 2 && ++shared === number)
          throw new AppError('storage_unavailable');
        return syncFiles.call(disk, paths, folders);
      };
      const engine = await process.engine;
      for (const { handle } of stores) engine.freeSegments(handle);
      await expect
        .poll(() => stores.map(({ covered, failed }, at) => covered !== before[at] || failed))
        .toEqual([true, true]);
      expect([shared, stores.map(({ failed }) => failed), process.failures]).toEqual([
        number,
        [false, false],
        [],
      ]);
      const later = process.after('synced only');
      for (const project of projects) {
        expect(later.has(`${folderOf(project)}/catalog`)).toBe(true);
        expect(await later.read(project)).toBe('a');
      }
    },
  );
});
