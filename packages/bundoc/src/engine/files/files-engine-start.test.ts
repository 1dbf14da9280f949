import { describe, expect, it } from 'vitest';
import { fileOf, folderOf, Process } from '../../testing/files-process.ts';
import { SMALL_LIMITS, STORAGE_ID } from '../../testing/test-engine.ts';
import { put, ref, remove } from '../../testing/writes.ts';
import { makeDirectoryDurably, replaceFile } from './disk/disk.ts';
import { Backlog } from './documents/backlog.ts';
import { FilesEngine } from './files-engine.ts';
import { SealedFolder } from './projects/sealed-folder.ts';

/** The temporary name of a new folder. */
const NEW = '/tmp/[0-9a-f]{24}';

describe('a new project', () => {
  it('costs a synced folder with its two files, and a part of the log', async () => {
    const process = new Process();
    const { disk } = process;
    await process.engine;
    const before = disk.trace.length;
    await process.write('p', put('a', '{}'), put('b', '{}'));
    await expect.poll(() => process.namesIn(folderOf('p')).length).toBe(4);
    const lines = disk.trace.slice(before);
    const outsideOfLog = lines.filter((line) => !line.includes('/log/'));
    expect(outsideOfLog).toEqual([
      expect.stringMatching(`^mkdir ${NEW}$`),
      expect.stringMatching(`^write ${NEW}/project.json$`),
      expect.stringMatching(`^write ${NEW}/catalog$`),
      expect.stringMatching(`^fsync ${NEW}/project.json$`),
      expect.stringMatching(`^fsync ${NEW}/catalog$`),
      expect.stringMatching(`^sync ${NEW}$`),
      expect.stringMatching(`^rename ${NEW} /projects/p$`),
      'sync /projects',
      'mkdir /projects/p/docs',
      expect.stringMatching(/^write \/projects\/p\/docs\/[0-9a-f]{32}$/),
      expect.stringMatching(/^write \/projects\/p\/docs\/[0-9a-f]{32}$/),
    ]);
    // The empty part and two commits; what is at the beginning of a segment is its header.
    expect(lines.filter((line) => /^write \/log\/\d+ [1-9]/.test(line))).toHaveLength(3);
    expect((await process.engine).stats).toMatchObject({ handles: 1, stuckHandles: 0 });
  });

  it('shares its syncs with others that are created at the same time', async () => {
    const process = new Process();
    const { disk } = process;
    await process.engine;
    const names = Array.from({ length: 64 }, (_, n) => `p${n}`);
    const before = disk.trace.length;
    await Promise.all(names.map((name) => process.create(name)));
    const lines = disk.trace.slice(before);
    expect(lines.filter((line) => line.startsWith('rename'))).toHaveLength(64);
    expect(lines.filter((line) => line === 'sync /projects').length).toBeLessThanOrEqual(2);
    const later = process.after('synced only');
    for (const name of names) expect(await later.read(name)).toBe('');
  });

  it('is complete with its first acknowledged write or does not exist, whenever the process ends', async () => {
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
    expect(operations).toBeGreaterThan(10);
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
              // The process that comes then ends early, too.
              next.disk.failAt({ operation: again, when, what: 'crash' });
              await Promise.race([next.read('p'), next.disk.crashes]).catch(() => undefined);
              next = next.after(end);
            }
            // BunKMS reads the folders while no process has looked at the log.
            const isThere = next.has('/projects/p/project.json');
            expect(next.has('/projects/p/catalog')).toBe(isThere);
            if (isThere) expect(next.disk.files().get('/projects/p/project.json')).toEqual(fileOf('p'));
            const content = isThere ? await next.read('p') : 'none';
            outcomes.add(content);
            if (isAcknowledged) expect(content).toBe('a');
            // What the next process builds on it is durable.
            await next.write('p', put('b', '{}'));
            const left = next.after('synced only');
            expect(await left.read('p')).toBe(content === 'a' ? 'ab' : 'b');
            await (await left.engine).scanned;
            expect(left.namesIn('/tmp')).toEqual([]);
          }
    expect([...outcomes].sort()).toEqual(['', 'a', 'none']);
  });

  it.each<[string, RegExp]>([
    ['project.json', new RegExp(`^write ${NEW}/project.json`)],
    ['the catalog', new RegExp(`^write ${NEW}/catalog`)],
    ['their sync', new RegExp(`^fsync ${NEW}`)],
    ['the name', /^rename/],
    ['the sync of the name', /^sync \/projects$/],
  ])('is created or opened by the next attempt after %s has failed, and is durable then', async (_, line) => {
    for (const when of ['before', 'after'] as const) {
      const process = new Process();
      const { disk } = process;
      await process.write('other', put('a', '{}'));
      const { handles } = (await process.engine).stats;
      let failures = 0;
      disk.failing = (operation) => {
        if (!line.test(operation)) return undefined;
        failures++;
        return when;
      };
      for (let attempt = 0; attempt < 3; attempt++) {
        if (process.has('/projects/p/project.json'))
          expect(['', 'storage_unavailable']).toContain(await process.read('p'));
        else await expect(process.create('p')).rejects.toMatchObject({ code: 'storage_unavailable' });
      }
      expect(failures).toBeGreaterThan(0);
      disk.failing = undefined;
      await process.write('p', put('a', '{}'));
      // Failed attempts leave at most one handle.
      expect((await process.engine).stats.handles).toBeLessThanOrEqual(handles + 2);
      expect(process.namesIn('/tmp')).toEqual([]);
      for (const one of [process, process.after('synced only')])
        for (const name of ['p', 'other']) expect(await one.read(name)).toBe('a');
    }
  });

  it('is created even if another one fails because its folder cannot get its name', async () => {
    const process = new Process();
    await process.engine;
    process.disk.failing = (operation) =>
      /^rename .* \/projects\/p$/.test(operation) ? 'before' : undefined;
    const [p, q] = await Promise.allSettled([process.create('p'), process.create('q')]);
    expect([p?.status, q?.status]).toEqual(['rejected', 'fulfilled']);
    process.disk.failing = undefined;
    expect(await process.after('synced only').read('q')).toBe('');
  });

  it('a creation that a crash has cut short leaves nothing in the log that keeps a segment', async () => {
    const before = new Process();
    await before.engine;
    before.disk.failAtLine(new RegExp(`^mkdir ${NEW}`), 'before');
    await Promise.race([before.create('p'), before.disk.crashes]).catch(() => undefined);
    const process = before.after('kill -9');
    const engine = await process.engine;
    await engine.scanned;
    expect(engine.stats.handles).toBe(1);
    await process.create('busy');
    const busy = await process.open('busy');
    for (let n = 0; n < 2; n++) await process.turnOver(busy);
    expect(engine.stats).toMatchObject({ stuckHandles: 0, writesStopped: false });
  });
});

describe('a start', () => {
  it('does not create a project again whose folder was removed', async () => {
    const before = new Process();
    await before.write('p', put('a', '{}'));
    const process = before.after('kill -9');
    await process.disk.removeTree(folderOf('p'));
    await process.disk.syncDirectory('/projects');
    await (await process.engine).scanned;
    expect(process.namesIn('/projects/p')).toEqual([]);
    await process.write('p', put('b', '{}'));
    for (const one of [process, process.after('synced only')]) expect(await one.read('p')).toBe('b');
  });

  it('a start without keys reaches the same state as one with keys', async () => {
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

  it('a start that cannot read a catalog keeps the empty part of a project that has arrived', async () => {
    const source = new Process();
    await source.write('p', put('a', '{}'));
    const store = await source.open('p');
    const { changes } = await store.sealedChanges(0, { limit: 100, bytesMax: 1_000_000 });
    const rest = await store.metadata();
    const first = new Process(undefined, source.keys);
    const { disk } = first;
    const engine = await first.engine;
    for (const directory of [folderOf('p'), `${folderOf('p')}/docs`])
      await makeDirectoryDurably(disk, directory);
    const folder = new SealedFolder({ disk, directory: folderOf('p'), tmp: '/tmp', project: 'p' });
    await folder.put(changes);
    const cipher = first.keys.of('p');
    const handle = await folder.finish(cipher, rest, fileOf('p'));
    await engine.arrived('p', handle, cipher);
    await replaceFile(disk, '/tmp', `${folderOf('p')}/project.json`, fileOf('p'));
    const process = await first.restarted();
    process.disk.failing = (operation) => (operation === 'read /projects/p/catalog' ? 'before' : undefined);
    await (await process.engine).scanned;
    process.disk.failing = undefined;
    expect(await process.read('p')).toBe('a');
    expect(await (await process.restarted()).read('p')).toBe('a');
  });

  it('is refused when the log of the storage is missing', async () => {
    const process = new Process();
    await process.write('p', put('a', '{}'));
    const { disk } = await process.restarted();
    for (const path of disk.files().keys()) if (path.startsWith('/log/')) disk.tamper(path, undefined);
    const open = FilesEngine.open({
      disk,
      logDisk: disk,
      dataDir: '/',
      projectsDir: '/projects',
      storageId: STORAGE_ID,
      mustExist: true,
      logLimits: SMALL_LIMITS.log,
      checkpointBytes: SMALL_LIMITS.checkpointBytes,
      backlog: new Backlog(8_192),
    });
    await expect(open).rejects.toThrow(expect.objectContaining({ name: 'LogDamaged' }));
  });
});
