import { describe, expect, it } from 'vitest';
import { fileOf, folderOf, Process } from '../../testing/files-process.ts';
import { SMALL_LIMITS, STORAGE_ID } from '../../testing/test-engine.ts';
import { put, ref, remove } from '../../testing/writes.ts';
import { Backlog } from './documents/backlog.ts';
import { FilesEngine } from './files-engine.ts';

describe('a new project', () => {
  it('costs its folder, project.json and its documents, and no sync but those of the log', async () => {
    const process = new Process();
    const { disk } = process;
    await process.engine;
    const before = disk.trace.length;
    await process.write('p', put('a', '{}'), put('b', '{}'));
    await expect.poll(() => process.namesIn(folderOf('p')).length).toBe(3);
    const lines = disk.trace.slice(before);
    const outsideOfLog = lines.filter((line) => !line.includes('/log/'));
    expect(outsideOfLog).toEqual([
      'mkdir /projects/p',
      'write /projects/p/project.json',
      'mkdir /projects/p/docs',
      expect.stringMatching(/^write \/projects\/p\/docs\/[0-9a-f]{32}$/),
      expect.stringMatching(/^write \/projects\/p\/docs\/[0-9a-f]{32}$/),
    ]);
    // The birth and two commits; what is at the beginning of a segment is its header.
    expect(lines.filter((line) => /^write \/log\/\d+ [1-9]/.test(line))).toHaveLength(3);
  });

  it('is opened the first time without a look at its folder or the log, and every other time with one', async () => {
    const process = new Process();
    const { disk } = process;
    await process.create('p');
    const asked: string[] = [];
    disk.failing = (operation) => {
      asked.push(operation);
      return undefined;
    };
    const first = await process.open('p');
    expect(asked).toEqual([]);
    await first.commit([put('a', '{}')]);
    await first[Symbol.asyncDispose]();
    asked.length = 0;
    expect(await process.read('p')).toBe('a');
    expect(asked.filter((operation) => operation.startsWith('read'))).not.toEqual([]);
  });

  it('is there with its project.json and its first acknowledged write, or not at all, whatever moment the process ends at', async () => {
    const make = async (process: Process) => {
      await process.create('p');
      const store = await process.open('p');
      await store.commit([put('a', '{}')]);
    };
    const whole = new Process();
    await whole.engine;
    const started = whole.disk.operations;
    await make(whole);
    const operations = whole.disk.operations - started;
    expect(operations).toBeGreaterThan(5);
    const outcomes = new Set<string>();
    for (let operation = 1; operation <= operations; operation++)
      for (const when of ['before', 'after'] as const)
        for (const end of ['kill -9', 'synced only', 'everything'] as const)
          for (const again of [undefined, 1, 2, 4, 8]) {
            const first = new Process();
            await first.engine;
            first.disk.failAt({ operation, when, what: 'crash' });
            const isAcknowledged = await Promise.race([make(first), first.disk.crashes]).then(
              () => true,
              () => false,
            );
            let next = first.after(end);
            if (again !== undefined) {
              // The start that comes then ends early, too.
              next.disk.failAt({ operation: again, when, what: 'crash' });
              await Promise.race([next.engine, next.disk.crashes]).catch(() => undefined);
              next = next.after(end);
            }
            // A start makes durable what there is, without a key.
            const isThere = (await next.engine).handleOf('p') !== undefined;
            const left = next.after('synced only');
            expect(left.has('/projects/p/project.json')).toBe(isThere);
            if (isThere) expect(left.disk.files().get('/projects/p/project.json')).toEqual(fileOf('p'));
            const content = isThere ? await left.read('p') : 'none';
            outcomes.add(content);
            if (isAcknowledged) expect(content).toBe('a');
          }
    expect([...outcomes].sort()).toEqual(['', 'a', 'none']);
  });

  it('whose folder could not be written is written at its next opening', async () => {
    const process = new Process();
    const { disk } = process;
    await process.engine;
    const { writeFiles } = disk;
    disk.writeFiles = async (files) => {
      disk.full = true;
      return writeFiles.call(disk, files).finally(() => (disk.full = false));
    };
    await expect(process.create('p')).rejects.toMatchObject({ code: 'disk_full' });
    disk.writeFiles = writeFiles;
    expect(process.has('/projects/p/project.json')).toBe(false);
    expect(await process.read('p')).toBe('');
    expect(process.has('/projects/p/project.json')).toBe(true);
  });

  it('whose project.json can be parsed keeps it, and one that a crash tore is written again', async () => {
    const process = new Process();
    await process.write('p', put('a', '{}'));
    await process.write('q', put('a', '{}'));
    process.disk.tamper('/projects/p/project.json', Buffer.from('{"rotated":true}'));
    process.disk.tamper('/projects/q/project.json', Buffer.from('{"pro'));
    const next = process.after('kill -9');
    await next.engine;
    expect(String(next.disk.files().get('/projects/p/project.json'))).toBe('{"rotated":true}');
    expect(next.disk.files().get('/projects/q/project.json')).toEqual(fileOf('q'));
  });
});

describe('a start', () => {
  it('does not make a project again whose folder somebody has removed since it was durable', async () => {
    const before = new Process();
    await before.write('p', put('a', '{}'));
    const process = await before.restarted();
    await process.engine;
    await process.write('q', put('a', '{}'));
    const later = process.after('kill -9');
    for (const project of ['p', 'q'])
      await later.disk.removeTree(folderOf(project)).then(() => later.disk.syncDirectory('/projects'));
    // Of the second one it is not known whether it ever was.
    expect([await later.read('q'), later.namesIn('/projects/p')]).toEqual(['a', []]);
    expect((await later.engine).handleOf('p')).toBeUndefined();
    await later.write('p', put('b', '{}'));
    for (const one of [later, later.after('synced only')]) expect(await one.read('p')).toBe('b');
  });

  it('without keys reaches the same state as one with keys', async () => {
    for (const end of ['everything', 'synced only'] as const) {
      const process = new Process();
      await process.write('new', put('a', '{}'));
      await process.write('behind', put('a', '{}'), put('b', '{}'));
      const behind = await process.open('behind');
      await behind.checkpoint();
      await behind.commit([remove('a'), put('c', '{}')]);
      await process.create('busy');
      const busy = await process.open('busy');
      await process.turnOver(busy);
      const expected = ['a', 'bc', ''];
      const withKeys = process.after(end);
      const keyless = process.after(end);
      await (await keyless.engine).scanned;
      expect(await (await keyless.engine).carryAll()).toEqual([]);
      const later = await keyless.restarted();
      for (const one of [withKeys, later])
        expect(await Promise.all(['new', 'behind', 'busy'].map((project) => one.read(project)))).toEqual(
          expected,
        );
      const [first, second] = await Promise.all([withKeys.open('busy'), later.open('busy')]);
      for (const n of [0, 1, 2]) {
        const texts = await Promise.all([first, second].map(async (store) => store.get(ref(`busy-${n}`))));
        expect(texts[0]?.text).toEqual(texts[1]?.text);
      }
    }
  });

  it('is refused when the log that the storage had is gone', async () => {
    const process = new Process();
    await process.write('p', put('a', '{}'));
    const { disk } = await process.restarted();
    for (const path of disk.files().keys()) if (path.startsWith('/log/')) disk.tamper(path, undefined);
    const open = FilesEngine.open({
      ...{
        disk,
        logDisk: disk,
        dataDir: '/',
        projectsDir: '/projects',
        storageId: STORAGE_ID,
        mustExist: true,
      },
      ...{ logLimits: SMALL_LIMITS.log, checkpointBytes: SMALL_LIMITS.checkpointBytes },
      backlog: new Backlog(8_192),
    });
    await expect(open).rejects.toThrow(expect.objectContaining({ name: 'LogDamaged' }));
  });
});
