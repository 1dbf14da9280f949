import { randomBytes } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import { describe, expect, it } from 'vitest';
import { beforeLogReads } from '../../testing/before-log-reads.ts';
import { folderOf, Process } from '../../testing/files-process.ts';
import { closeEngine } from '../../testing/test-engine.ts';
import { put, ref } from '../../testing/writes.ts';

describe('the log is freed', () => {
  it('the log is freed by a checkpoint of open projects, and by carrying closed ones without their keys', async () => {
    const before = new Process();
    await before.write('closed', put('a', '{}'), put('b', '{}'));
    const process = await before.restarted();
    await process.create('open');
    const open = await process.open('open');
    await open.commit([put('a', '{}')]);
    await process.create('busy');
    await process.turnOver(await process.open('busy'));
    expect(process.namesIn('/projects/closed/carried')).toHaveLength(1);
    expect([process.has('/projects/open/catalog'), process.namesIn('/projects/open/carried')]).toEqual([
      true,
      [],
    ]);
    expect((await process.engine).stats).toMatchObject({ stuckHandles: 0, writesStopped: false });

    const later = process.after('synced only');
    const store = await later.open('closed');
    expect(await store.get(ref('b'))).toBeDefined();
    await store.checkpoint();
    expect(later.namesIn('/projects/closed/carried')).toEqual([]);
    await store[Symbol.asyncDispose]();
    for (const one of [later, later.after('synced only')]) expect(await one.read('closed')).toBe('ab');
    expect(await later.read('open')).toBe('a');
  });

  it('a carried file is durable even when an earlier attempt made its folder and was cut short', async () => {
    const before = new Process();
    for (const name of ['p', 'q']) await before.write(name, put('a', '{}'));
    const process = await before.restarted();
    const engine = await process.engine;
    await engine.scanned;
    const { disk } = process;
    const { rename } = disk;
    disk.rename = async (from, to) => {
      if (to.startsWith('/projects/q/carried/')) throw new AppError('disk_full');
      return rename.call(disk, from, to);
    };
    await expect(engine.carryAll()).rejects.toMatchObject({ code: 'disk_full' });
    disk.rename = rename;
    expect(await engine.carryAll()).toEqual([]);
    await process.create('busy');
    await process.turnOver(await process.open('busy'));
    const later = process.after('synced only');
    for (const name of ['p', 'q']) expect(await later.read(name)).toBe('a');
  });

  it('carrying leaves out a commit that was refused because its write failed, although the log has its bytes', async () => {
    const process = new Process();
    const { disk } = process;
    await process.create('closed');
    const store = await process.open('closed');
    const operationsOf = async (action: () => Promise<unknown>) => {
      const before = disk.trace.length;
      await action();
      return disk.trace.slice(before);
    };
    await store.commit([put('a', '{}')]);
    const usual = await operationsOf(() => store.commit([put('b', '{}')]));
    const sync = usual.findIndex((line) => /^fdatasync \/log/.test(line));
    disk.failAt({ operation: sync + 1, when: 'after', what: 'storage_unavailable' });
    await expect(store.commit([put('c', '{}')])).rejects.toMatchObject({ code: 'storage_unavailable' });
    // In the next segment.
    await store.commit([put('d', '{}')]);
    await store[Symbol.asyncDispose]();
    await process.create('busy');
    await process.turnOver(await process.open('busy'));
    expect(process.namesIn('/projects/closed/carried')).toHaveLength(2);
    expect(await process.after('synced only').read('closed')).toBe('abd');
  });

  describe('of a project whose first parts a former process carried into its folder', () => {
    const made = async () => {
      const before = new Process();
      await before.write('p', put('a', '{}'));
      await (await before.engine).carryAll();
      await before.write('p', put('b', '{}'));
      const process = await before.restarted();
      expect(process.namesIn('/projects/p/carried')).toHaveLength(1);
      return process;
    };

    it('the log is freed by carrying later parts of a project into its folder, too', async () => {
      const process = await made();
      await process.create('busy');
      await process.turnOver(await process.open('busy'));
      expect([(await process.engine).stats.stuckHandles, process.namesIn('/log/stuck')]).toEqual([0, []]);
      expect(process.namesIn('/projects/p/carried')).toHaveLength(2);
      expect(await process.after('synced only').read('p')).toBe('ab');
    });

    it("the log is freed without carrying anything into a copy of the project's folder under another name", async () => {
      const process = await made();
      const copied = process.namesIn(folderOf('p'));
      await closeEngine(process.disk);
      // In the list of projects, the copy comes first.
      await process.disk.makeDirectory('/projects/copy');
      await process.disk.makeDirectory('/projects/copy/carried');
      for (const path of copied) {
        const content = process.disk.files().get(path);
        process.disk.tamper(path.replace('/projects/p/', '/projects/copy/'), content);
      }
      await process.create('busy');
      await process.turnOver(await process.open('busy'));
      expect(process.namesIn('/projects/copy/carried')).toHaveLength(1);
      expect(await process.after('synced only').read('p')).toBe('ab');
    });
  });

  it('the log is freed by moving the parts of a project whose folder fails into the folder of the log', async () => {
    const before = new Process();
    await before.write('failing', put('a', '{}'), put('b', '{}'));
    const process = await before.restarted();
    process.disk.tamper('/projects/failing/carried', Buffer.from('no folder'));
    await process.create('busy');
    const busy = await process.open('busy');
    await process.turnOver(busy);
    expect((await process.engine).stats).toMatchObject({ stuckHandles: 1, writesStopped: false });
    expect(process.namesIn('/log/stuck')).toHaveLength(1);
    await process.turnOver(busy);

    const later = process.after('synced only');
    await later.engine;
    expect(process.namesIn('/tmp')).toEqual([]);
    later.disk.tamper('/projects/failing/carried', undefined);
    const store = await later.open('failing');
    expect(await store.get(ref('b'))).toBeDefined();
    await store.checkpoint();
    expect([(await later.engine).stats.stuckHandles, later.namesIn('/log/stuck')]).toEqual([0, []]);
    await store[Symbol.asyncDispose]();
    expect(await later.after('synced only').read('failing')).toBe('ab');
  });

  it('the log keeps the parts of a removed folder until its project is complete again, whose key alone tells them', async () => {
    const before = new Process();
    for (const project of ['p', 'q']) await before.write(project, put('a', '{}'));
    const process = await before.restarted();
    const { disk, keys } = process;
    const removed = process.namesIn('/projects');
    for (const path of removed) disk.tamper(path, undefined);
    await process.create('busy');
    await process.turnOver(await process.open('busy'));
    const engine = await process.engine;
    expect(engine.stats.stuckHandles).toBe(2);
    for (const [project, left] of [
      ['other', 2],
      ['q', 1],
      ['p', 0],
    ] as const) {
      await engine.arrived(project, randomBytes(8).toString('hex'), keys.of(project));
      await engine.endOrphans(project, keys.of(project));
      expect([project, engine.stats.stuckHandles, process.namesIn('/log/stuck').length]).toEqual([
        project,
        left,
        left,
      ]);
    }
  });

  it('a folder that is put back after an interrupted restore of its project has all its commits', async () => {
    const before = new Process();
    await before.write('p', put('a', '{}'), put('b', '{}'));
    const process = await before.restarted();
    const { disk, keys } = process;
    const moved = new Map(process.namesIn('/projects/p').map((path) => [path, disk.files().get(path)]));
    for (const path of moved.keys()) disk.tamper(path, undefined);
    await (await process.engine).arrived('p', randomBytes(8).toString('hex'), keys.of('p'));
    const later = process.after('synced only');
    for (const [path, content] of moved) later.disk.tamper(path, content);
    expect(await later.read('p')).toBe('ab');
  });

  it('a start frees only parts whose catalogs it has made durable', async () => {
    const process = new Process();
    await process.write('p', put('a', '{}'));
    const store = await process.open('p');
    await store.checkpoint();
    await (await process.engine).carryAll();
    await store.commit([put('b', '{}')]);
    await store.files.whenWritten();
    // The catalog has its new name, which is not durable.
    process.disk.failAtLine(/^rename .*catalog$/, 'after');
    await Promise.race([store.checkpoint(), process.disk.crashes]).catch(() => undefined);
    expect(process.disk.crashed).toBe(true);
    const next = process.after('kill -9');
    await (await next.engine).scanned;
    // It begins a segment, whose header says which ones were freed.
    await next.create('q');
    expect(await next.after('synced only').read('p')).toBe('ab');
  });

  it('the log is freed of a segment with an unreadable sector, which damages only the projects in it', async () => {
    const before = new Process();
    const unreadable = new Map<string, number>();
    for (const project of ['first', 'bad', 'good', 'behind']) {
      const written = before.disk.trace.length;
      await before.write(project, put('a', '{}'));
      if (project === 'good' || project === 'first') continue;
      const line = before.disk.trace.slice(written).findLast((one) => /^write \/log\/\d+ [1-9]/.test(one));
      const [, path = '', offset] = line?.split(' ') ?? [];
      unreadable.set(`${path} ${offset}`, Number(offset));
    }
    const process = await before.restarted();
    let isUnreadable = false;
    let failed = 0;
    beforeLogReads(process.disk, async (path, offset, bytes) => {
      const isIn = (key: string, at: number) =>
        key.startsWith(`${path} `) && at >= offset && at < offset + bytes;
      if (!isUnreadable || !unreadable.entries().some(([key, at]) => isIn(key, at))) return;
      failed++;
      throw new AppError('storage_unavailable');
    });
    for (const project of ['good', 'behind']) await process.write(project, put('b', '{}'));
    isUnreadable = true;
    await process.create('busy');
    const busy = await process.open('busy');
    await process.turnOver(busy);
    expect(failed).toBeGreaterThan(0);
    expect((await process.engine).stats.writesStopped).toBe(false);
    isUnreadable = false;
    for (const one of [process, process.after('synced only')])
      expect(await Promise.all(['first', 'bad', 'good', 'behind'].map((name) => one.read(name)))).toEqual([
        'a',
        'project_damaged',
        'ab',
        'project_damaged',
      ]);
  });

  it('a start that cannot sync one catalog frees the parts of all other projects', async () => {
    const before = new Process();
    for (const project of ['p', 'q']) {
      await before.write(project, put('a', '{}'));
      const store = await before.open(project);
      await store.checkpoint();
      // As if the process had been killed: what is covered is in the catalog alone.
      await store[Symbol.asyncDispose]();
    }
    const process = before.after('kill -9');
    const { disk } = process;
    disk.failing = (line) => (line === 'fsync /projects/p/catalog' ? 'before' : undefined);
    const engine = await process.engine;
    const uncovered = engine.stats.uncoveredBytes;
    await engine.scanned;
    disk.failing = undefined;
    expect(engine.stats.uncoveredBytes).toBeGreaterThan(0);
    expect(engine.stats.uncoveredBytes).toBeLessThan(uncovered);
    for (const project of ['p', 'q']) expect(await process.read(project)).toBe('a');
  });

  it('is not freed while a segment cannot be opened, because its parts are unknown', async () => {
    const before = new Process();
    await before.write('p', put('a', '{}'));
    const store = await before.open('p');
    await store.checkpoint();
    await (await before.engine).carryAll();
    await store.commit([put('b', '{}')]);
    const line = before.disk.trace.findLast((one) => /^write \/log\/\d+ [1-9]/.test(one));
    const [, segment] = line?.split(' ') ?? [];
    await store[Symbol.asyncDispose]();
    const process = await before.restarted();
    const { disk } = process;
    const { openLogFile } = disk;
    const engine = await process.engine;
    await engine.scanned;
    let failed = 0;
    disk.openLogFile = async (path) => {
      if (path !== segment) return openLogFile.call(disk, path);
      failed++;
      throw new AppError('storage_unavailable');
    };
    await expect(engine.carryAll()).rejects.toMatchObject({ code: 'storage_unavailable' });
    expect(failed).toBe(1);
    disk.openLogFile = openLogFile;
    expect(await engine.carryAll()).toEqual([]);
    for (const one of [process, process.after('synced only')]) expect(await one.read('p')).toBe('ab');
  });

  it('the log is freed of handles without a folder', async () => {
    const before = new Process();
    await before.write('gone', put('a', '{}'));
    const store = await before.open('gone');
    await store.checkpoint();
    await before.create('first');
    const first = await before.open('first');
    await before.turnOver(first);
    await first[Symbol.asyncDispose]();
    await store.commit([put('b', '{}')]);
    await store[Symbol.asyncDispose]();
    const process = await before.restarted();
    for (const path of process.namesIn('/projects/gone')) process.disk.tamper(path, undefined);
    await process.create('busy');
    const busy = await process.open('busy');
    for (let n = 0; n < 3; n++) await process.turnOver(busy);
    expect((await process.engine).stats.writesStopped).toBe(false);
    expect(process.namesIn('/projects/gone')).toEqual([]);
  });
});
