import { setImmediate } from 'node:timers/promises';
import { AppError } from '@bundoc/shared/contract/app-error';
import { parseCatalogHead } from '@bundoc/shared/contract/catalog-head';
import { describe, expect, it } from 'vitest';
import { fileOf, folderOf, Process } from '../../testing/files-process.ts';
import type { SimulatedDisk } from '../../testing/simulated-disk.ts';
import { closeEngine } from '../../testing/test-engine.ts';
import { put } from '../../testing/writes.ts';

describe('an opening', () => {
  it.each(['with a checkpoint', 'that has none yet'])(
    'an opening of a project %s finds parts that are carried after its folder was listed',
    async (kind) => {
      const process = new Process();
      await process.write('p', put('a', '{}'));
      if (kind === 'with a checkpoint') {
        const store = await process.open('p');
        await store.checkpoint();
        await store.commit([put('b', '{}')]);
        await store[Symbol.asyncDispose]();
      }
      const entries = await process.disk.list('/projects/p');
      expect(await (await process.engine).carryAll()).toEqual([]);
      const store = await process.open('p', fileOf('p'), entries);
      await store.commit([put('c', '{}')]);
      await store.checkpoint();
      await store[Symbol.asyncDispose]();
      expect(await process.after('synced only').read('p')).toBe(kind === 'with a checkpoint' ? 'abc' : 'ac');
    },
  );

  it('finds parts that are carried out of the log while it reads the folder', async () => {
    const process = new Process();
    await process.write('p', put('a', '{}'));
    const { disk } = process;
    const engine = await process.engine;
    const { list } = disk;
    disk.list = async (directory) => {
      const names = await list.call(disk, directory);
      if (directory !== '/projects/p') return names;
      disk.list = list;
      await engine.carryAll();
      return names;
    };
    expect(await process.read('p')).toBe('a');
    expect(process.namesIn('/projects/p/carried')).toHaveLength(1);
  });

  it('finds parts that are carried out of the log and overwritten there after it has read the newest part', async () => {
    const process = new Process();
    await process.write('p', put('a', '{}'));
    const engine = await process.engine;
    await engine.carryAll();
    await process.write('p', put('b', '{}'));
    await process.create('busy');
    const busy = await process.open('busy');
    const { disk } = process;
    const { list } = disk;
    disk.list = async (directory) => {
      const names = await list.call(disk, directory);
      if (directory !== '/projects/p/carried') return names;
      disk.list = list;
      await engine.carryAll();
      await process.turnOver(busy);
      return names;
    };
    expect(await process.read('p')).toBe('ab');
    expect(process.namesIn('/projects/p/carried')).toHaveLength(2);
  });

  it('serves a project whose files failed while it was closed', async () => {
    const process = new Process();
    await process.create('p');
    const { disk } = process;
    const { writeFiles } = disk;
    const closed = Promise.withResolvers<void>();
    const failed = Promise.withResolvers<void>();
    const first = await process.open('p');
    disk.writeFiles = async (files) => {
      await closed.promise;
      disk.writeFiles = writeFiles;
      failed.resolve();
      return files.map(() => new AppError('storage_unavailable'));
    };
    await first.commit([put('a', '{}')]);
    await first[Symbol.asyncDispose]();
    closed.resolve();
    await failed.promise;
    await setImmediate();
    const store = await process.open('p');
    await store.commit([put('b', '{}')]);
    await store.checkpoint();
    await store[Symbol.asyncDispose]();
    expect([await process.read('p'), process.failures]).toEqual(['ab', []]);
    expect(await process.after('synced only').read('p')).toBe('ab');
  });
});

describe('a copy of a project’s folder under another name', () => {
  /** `acme` with a document in its catalog and one that only the log has, and a copy of its folder. */
  async function copied(name: string): Promise<Process> {
    const first = new Process();
    await first.write('acme', put('a', '{}'));
    const store = await first.open('acme');
    await store.checkpoint();
    await store[Symbol.asyncDispose]();
    const second = await first.restarted();
    await second.write('acme', put('b', '{}'));
    await closeEngine(second.disk);
    const process = second.after('kill -9');
    for (const directory of [folderOf(name), `${folderOf(name)}/docs`])
      await process.disk.makeDirectory(directory);
    for (const path of process.namesIn(folderOf('acme')))
      process.disk.tamper(
        path.replace(folderOf('acme'), folderOf(name)),
        Buffer.from(process.disk.files().get(path) as Buffer),
      );
    await (await process.engine).scanned;
    return process;
  }

  it.each(['a-copy', 'acme-old', 'zz'])('gets no part of the log when it is freed: %s', async (name) => {
    const process = await copied(name);
    await process.create('busy');
    const busy = await process.open('busy');
    await process.turnOver(busy);
    await busy[Symbol.asyncDispose]();
    expect(await process.read('acme')).toBe('ab');
  });

  it.each(['a-copy', 'acme-old', 'zz'])('is removed without an end of the original: %s', async (name) => {
    const process = await copied(name);
    await (await process.engine).forget(name);
    expect(await process.read('acme')).toBe('ab');
    const next = await process.restarted();
    expect(await next.read('acme')).toBe('ab');
  });
});

describe('an older copy of a project’s folder that is put back', () => {
  it('opens with all commits if the log still has the parts after it', async () => {
    const process = new Process();
    await process.write('p', put('a', '{}'));
    const store = await process.open('p');
    await store.checkpoint();
    const putBack = process.copyOf('p');
    await store.commit([put('b', '{}')]);
    await store.checkpoint();
    await store[Symbol.asyncDispose]();
    const next = await process.restarted();
    putBack();
    const later = new Process(process.disk.restart(), process.keys);
    expect([await later.read('p'), next.disk === process.disk]).toEqual(['ab', false]);
  });

  it('is damage if the log has freed the parts after it', async () => {
    const process = new Process();
    await process.write('p', put('a', '{}'));
    const store = await process.open('p');
    await store.checkpoint();
    const putBack = process.copyOf('p');
    await store.commit([put('b', '{}')]);
    await store.checkpoint();
    await process.create('busy');
    await process.turnOver(await process.open('busy'));
    await store.commit([put('c', '{}')]);
    await store[Symbol.asyncDispose]();
    await closeEngine(process.disk);
    putBack();
    expect(await new Process(process.disk.restart(), process.keys).read('p')).toBe('project_damaged');
  });
});

describe('an older copy of the log that is put back', () => {
  it('is damage for a project whose catalog is later', async () => {
    const process = new Process();
    await process.write('p', put('a', '{}'));
    await process.write('q', put('a', '{}'));
    const older = await process.restarted();
    const { disk } = older.after('everything');
    const store = await older.open('p');
    await store.commit([put('b', '{}')]);
    await store.checkpoint();
    await store[Symbol.asyncDispose]();
    await closeEngine(older.disk);
    const now = new Process(older.disk.powerCut('everything'), process.keys);
    for (const path of now.namesIn('/log')) now.disk.tamper(path, undefined);
    for (const [path, bytes] of disk.files()) if (path.startsWith('/log/')) now.disk.tamper(path, bytes);
    expect([await now.read('p'), await now.read('q')]).toEqual(['project_damaged', 'a']);
  });
});

describe('a project that is gone', () => {
  it('is not created again by a start', async () => {
    const process = new Process();
    await process.write('p', put('a', '{}'));
    await (await process.engine).forget('p');
    await process.disk.removeTree('/projects/p');
    for (const end of ['kill -9', 'synced only', 'everything'] as const) {
      const next = process.after(end);
      await (await next.engine).scanned;
      if (end !== 'synced only') expect(next.namesIn('/projects/p')).toEqual([]);
    }
  });

  it('a project that is created again within one segment is empty, and a copy of its former folder is damage', async () => {
    const process = new Process();
    await process.write('p', put('a', '{}'));
    const store = await process.open('p');
    await store.checkpoint();
    await store.commit([put('b', '{}')]);
    await store[Symbol.asyncDispose]();
    const putBack = process.copyOf('p');
    await (await process.engine).forget('p');
    await process.disk.removeTree('/projects/p');
    await process.disk.syncDirectory('/projects');
    await process.write('p', put('c', '{}'));
    expect((await process.engine).stats.segmentsLive).toBe(1);
    for (const one of [process, process.after('kill -9'), process.after('synced only')])
      expect(await one.read('p')).toBe('c');
    await closeEngine(process.disk);
    putBack();
    expect(await new Process(process.disk.restart(), process.keys).read('p')).toBe('project_damaged');
  });

  it('leaves nothing in the log, even if a former process carried its first parts out', async () => {
    const before = new Process();
    await before.write('p', put('a', '{}'));
    await (await before.engine).carryAll();
    await before.write('p', put('b', '{}'));
    const process = await before.restarted();
    const engine = await process.engine;
    expect(engine.stats.uncoveredBytes).toBeGreaterThan(0);
    await engine.forget('p');
    expect(engine.stats.uncoveredBytes).toBe(0);
    await process.disk.removeTree('/projects/p');
    await process.create('busy');
    await process.turnOver(await process.open('busy'));
    expect([
      engine.stats.stuckHandles,
      process.namesIn('/log/stuck'),
      process.namesIn('/projects/p'),
    ]).toEqual([0, [], []]);
  });
});

describe('the copy of project.json in the catalog', () => {
  const copyIn = (disk: SimulatedDisk) =>
    parseCatalogHead(disk.files().get('/projects/p/catalog') ?? Buffer.alloc(0))?.projectFile;

  it.each(['with a checkpoint', 'that has none yet'])(
    'the copy of project.json in the catalog of a project %s has every key version that seals something',
    async (kind) => {
      const process = new Process();
      await process.write('p', put('a', '{}'));
      if (kind === 'with a checkpoint') {
        const store = await process.open('p');
        await store.checkpoint();
        await store[Symbol.asyncDispose]();
        expect(copyIn(process.disk)).toEqual(fileOf('p'));
      }
      process.keys.rotate('p');
      const rotated = fileOf('p', 2);
      const store = await process.open('p', rotated);
      expect(copyIn(process.disk.powerCut('synced only'))).toEqual(rotated);
      await store.commit([put('b', '{}')]);
      await store[Symbol.asyncDispose]();
      expect(await process.after('synced only').read('p')).toBe('ab');
    },
  );
});
