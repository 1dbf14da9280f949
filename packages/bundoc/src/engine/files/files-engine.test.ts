import { createSecretKey, randomBytes } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { AppError } from '@bundoc/shared/contract/app-error';
import { parseCatalogHead } from '@bundoc/shared/contract/catalog-head';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { describe, expect, it } from 'vitest';
import { type DekVersion, ProjectCipher } from '../../crypto/project-cipher.ts';
import { SimulatedDisk } from '../../testing/simulated-disk.ts';
import { closeEngine, engineOn, SMALL_LIMITS, STORAGE_ID } from '../../testing/test-engine.ts';
import { put, ref, remove } from '../../testing/writes.ts';
import { describeProjectStore } from '../conformance.ts';
import type { Write } from '../port.ts';
import { SEAL_LIMITS } from '../seal-budget.ts';
import { Backlog } from './documents/backlog.ts';
import { createSealedCache } from './documents/sealed-cache.ts';
import { FilesEngine } from './files-engine.ts';
import type { EmbeddedStore } from './store/embedded-store.ts';

/** Keys of projects: they outlive processes and disks. */
class Keys {
  readonly #versions = new Map<string, [DekVersion, ...DekVersion[]]>();
  readonly #nameKeys = new Map<string, ReturnType<typeof createSecretKey>>();

  of(project: string): ProjectCipher {
    const versions = this.#versions.get(project) ?? [{ version: 1, dek: createSecretKey(randomBytes(32)) }];
    const nameKey = this.#nameKeys.get(project) ?? createSecretKey(randomBytes(32));
    this.#versions.set(project, versions);
    this.#nameKeys.set(project, nameKey);
    return new ProjectCipher(project, versions, nameKey);
  }

  rotate(project: string): void {
    const versions = this.#versions.get(project) as [DekVersion, ...DekVersion[]];
    const version = versions[0].version + 1;
    this.#versions.set(project, [{ version, dek: createSecretKey(randomBytes(32)) }, ...versions]);
  }
}

const fileOf = (project: string, version = 1) => Buffer.from(JSON.stringify({ project, version }));
const folderOf = (project: string) => `/projects/${project}`;
const pad = (n: number) => `{"v":${n},"pad":"${'x'.repeat(2_000)}"}`;

/** A process, which has a data folder to itself. */
class Process {
  readonly disk: SimulatedDisk;
  readonly keys: Keys;
  readonly failures: unknown[] = [];

  constructor(disk = new SimulatedDisk('/', '/projects'), keys = new Keys()) {
    this.disk = disk;
    this.keys = keys;
  }

  get engine(): Promise<FilesEngine> {
    return engineOn(this.disk, { clock: new FakeClock() });
  }

  async create(project: string): Promise<void> {
    const engine = await this.engine;
    await engine.create(project, folderOf(project), this.keys.of(project), fileOf(project));
  }

  async open(
    project: string,
    projectFile = fileOf(project),
    entries?: readonly string[],
  ): Promise<EmbeddedStore> {
    const engine = await this.engine;
    await engine.writeBirth(project, folderOf(project));
    return engine.openStore({
      ...{ project, directory: folderOf(project), projectFile, disk: this.disk },
      ...{ cipher: this.keys.of(project), clock: new FakeClock(), cache: createSealedCache(0) },
      onIntegrityError: (fileName) => this.failures.push(fileName),
      onFailure: (error) => this.failures.push(error),
      onRotationDue: () => undefined,
      sealLimits: SEAL_LIMITS,
      entries,
    });
  }

  /** Writes into a project, which is made if need be, and leaves it closed. */
  async write(project: string, ...writes: Write[]): Promise<void> {
    if (!this.has(`${folderOf(project)}/project.json`)) await this.create(project);
    const store = await this.open(project);
    for (const write of writes) await store.commit([write]);
    await store[Symbol.asyncDispose]();
  }

  /** What a project has of the ids `a` to `e`, and the code of the error when it does not open. */
  async read(project: string): Promise<string> {
    let store: EmbeddedStore;
    try {
      store = await this.open(project);
    } catch (error) {
      return (error as { code: string }).code;
    }
    const found: string[] = [];
    for (const id of ['a', 'b', 'c', 'd', 'e']) if ((await store.get(ref(id))) !== undefined) found.push(id);
    await store[Symbol.asyncDispose]();
    return found.join('');
  }

  /** Writes into a project until the log has used the segments again that it has now. */
  async turnOver(store: EmbeddedStore): Promise<void> {
    for (let n = 0; n < 400; n++) await store.commit([put(`busy-${n % 3}`, pad(n))]);
  }

  has(path: string): boolean {
    return this.disk.files().has(path);
  }

  namesIn(directory: string): string[] {
    return [...this.disk.files().keys()].filter((path) => path.startsWith(`${directory}/`));
  }

  /** Copies a project's folder as it is now. @returns what puts the copy in the place of what is there. */
  copyOf(project: string): () => void {
    const paths = this.namesIn(folderOf(project));
    const copy = paths.map((path) => [path, Buffer.from(this.disk.files().get(path) as Buffer)] as const);
    return () => {
      for (const path of this.namesIn(folderOf(project))) this.disk.tamper(path, undefined);
      for (const [path, content] of copy) this.disk.tamper(path, content);
    };
  }

  /** Ends in order. @returns a process that starts afterwards. */
  async restarted(): Promise<Process> {
    await closeEngine(this.disk);
    return new Process(this.disk.restart(), this.keys);
  }

  /** A process that starts after this one was killed, or the power went. */
  after(end: 'kill -9' | 'synced only' | 'everything'): Process {
    return new Process(end === 'kill -9' ? this.disk.restart() : this.disk.powerCut(end), this.keys);
  }
}

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

describe('the log is freed', () => {
  it('by a checkpoint of what is open, and by carrying what is closed, whose keys nobody has', async () => {
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

  describe('of a project without a catalog whose birth a former process carried into its folder', () => {
    const made = async () => {
      const before = new Process();
      await before.write('p', put('a', '{}'));
      await (await before.engine).carryAll();
      await before.write('p', put('b', '{}'));
      const process = await before.restarted();
      expect([process.has('/projects/p/catalog'), process.namesIn('/projects/p/carried').length]).toEqual([
        false,
        1,
      ]);
      return process;
    };

    it('by carrying its later parts into its folder, too', async () => {
      const process = await made();
      await process.create('busy');
      await process.turnOver(await process.open('busy'));
      expect([(await process.engine).stats.stuckHandles, process.namesIn('/log/stuck')]).toEqual([0, []]);
      expect(process.namesIn('/projects/p/carried')).toHaveLength(2);
      expect(await process.after('synced only').read('p')).toBe('ab');
    });

    it('by carrying nothing into a copy of its folder under another name', async () => {
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

  it('by putting the parts of a project whose folder fails into the folder of the log: others write on, and it opens', async () => {
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
    later.disk.tamper('/projects/failing/carried', undefined);
    const store = await later.open('failing');
    expect(await store.get(ref('b'))).toBeDefined();
    await store.checkpoint();
    expect([(await later.engine).stats.stuckHandles, later.namesIn('/log/stuck')]).toEqual([0, []]);
    await store[Symbol.asyncDispose]();
    expect(await later.after('synced only').read('failing')).toBe('ab');
  });

  it('by a start only as far as it has made the catalogs durable', async () => {
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

  it('of a segment with a sector that cannot be read: its projects are damaged, and the others go on', async () => {
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

  it('by a start of which one catalog cannot be synced, by the others', async () => {
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

  it('not while a segment cannot be opened: what is in it is not known', async () => {
    const before = new Process();
    await before.write('p', put('a', '{}'));
    const store = await before.open('p');
    await store.checkpoint();
    // A start opens the segments that have births.
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

  it('of handles that no folder claims', async () => {
    const before = new Process();
    await before.write('gone', put('a', '{}'));
    const store = await before.open('gone');
    await store.checkpoint();
    await before.create('first');
    // Otherwise the log has its birth, and a start makes its folder again.
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

/** Has something done before each read of a log file that is opened from now on. */
function beforeLogReads(
  disk: SimulatedDisk,
  task: (path: string, offset: number, bytes: number) => Promise<void>,
): void {
  const { openLogFile } = disk;
  disk.openLogFile = async (path) => {
    const file = await openLogFile.call(disk, path);
    const read = async (offset: number, bytes: number) => {
      await task(path, offset, bytes);
      return file.read(offset, bytes);
    };
    return { ...file, read };
  };
}

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

describe('an opening', () => {
  it.each(['with a catalog', 'that has none yet'])(
    'of a project %s finds what is carried out of the log after its folder was listed',
    async (kind) => {
      const process = new Process();
      await process.write('p', put('a', '{}'));
      if (kind === 'with a catalog') {
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
      expect(await process.after('synced only').read('p')).toBe(kind === 'with a catalog' ? 'abc' : 'ac');
    },
  );

  it('has what is carried out of the log while it reads the folder', async () => {
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

  it('has what is carried out of the log, and written over there, after it has asked the log for the newest part', async () => {
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

  it('that removes the last file of carried parts keeps one that is carried meanwhile', async () => {
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

  it('of a store that fails meanwhile fails, and leaves its parts to the next opening', async () => {
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

  it('that writes documents again after a failed sync leaves later states of them', async () => {
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

  it('whose sync fails on a full disk twice fails the store, and loses nothing', async () => {
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

  it('waits for the one that is under way, and is shared by all who ask meanwhile', async () => {
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
    'whose sync number %i for several catalogs fails replaces each by itself',
    async (number) => {
      const process = new Process();
      const { disk } = process;
      const projects = ['p', 'q'];
      for (const project of projects) await process.create(project);
      const stores = await Promise.all(projects.map((project) => process.open(project)));
      for (const store of stores) await store.commit([put('a', '{}')]);
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
        .poll(() => stores.map(({ covered, failed }) => covered !== undefined || failed))
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

describe('an older copy of a project’s folder that is put back', () => {
  it('is brought forward by what the log has behind it', async () => {
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

  it('is damage when the log has freed what is behind it', async () => {
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

describe('a project that is gone', () => {
  it('is not made again by a start, though the log has its birth', async () => {
    const process = new Process();
    await process.write('p', put('a', '{}'));
    await (await process.engine).forget('p');
    await process.disk.removeTree('/projects/p');
    for (const end of ['kill -9', 'synced only', 'everything'] as const) {
      const next = process.after(end);
      expect((await next.engine).handleOf('p')).toBeUndefined();
      if (end !== 'synced only') expect(next.namesIn('/projects/p')).toEqual([]);
    }
  });

  it('and comes back within one segment has nothing from before, and a copy of its former folder is damage', async () => {
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

  it('leaves nothing in the log, though its birth was carried out of it by a former process', async () => {
    const before = new Process();
    await before.write('p', put('a', '{}'));
    await (await before.engine).carryAll();
    await before.write('p', put('b', '{}'));
    const process = await before.restarted();
    expect([process.has('/projects/p/catalog'), (await process.engine).handleOf('p')]).toEqual([
      false,
      undefined,
    ]);
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

  it.each(['with a catalog', 'that has none yet'])(
    'of a project %s is never older than a key version that something is sealed under',
    async (kind) => {
      const process = new Process();
      await process.write('p', put('a', '{}'));
      if (kind === 'with a catalog') {
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

describe('projects that take turns', () => {
  const NEIGHBOURS = 500;
  let process = new Process();
  let made: Promise<unknown> | undefined;
  let open = new Map<string, EmbeddedStore>();
  let turn = 0;
  let tests = 0;

  /** The next few of the others write, each a document that says whose it is. */
  async function neighboursWrite(): Promise<void> {
    const next = Array.from({ length: 5 }, () => `n${turn++ % NEIGHBOURS}`);
    await Promise.all(
      next.map(async (project) => {
        const store = open.get(project) ?? (await process.open(project));
        open.set(project, store);
        await store.commit([put('a', `{"of":"${project}","turn":${turn}}`)]);
      }),
    );
  }

  function beside(store: EmbeddedStore): EmbeddedStore {
    const { commit } = store;
    return Object.assign(store, {
      commit: async (...args: Parameters<EmbeddedStore['commit']>) => {
        const [answer] = await Promise.all([commit.apply(store, args), neighboursWrite()]);
        return answer;
      },
    });
  }

  describeProjectStore(`An EmbeddedStore beside ${NEIGHBOURS} others`, async () => {
    made ??= Promise.all(Array.from({ length: NEIGHBOURS }, (_, n) => process.create(`n${n}`)));
    await made;
    const project = `test-${tests++}`;
    await process.create(project);
    return {
      store: beside(await process.open(project)),
      reopen: async () => {
        process = process.after('synced only');
        open = new Map();
        return beside(await process.open(project));
      },
    };
  });

  it('have each what they wrote last, after a power cut', async () => {
    await setImmediate();
    const later = process.after('synced only');
    for (const [project, store] of open) {
      const there = await later.open(project);
      expect((await there.get(ref('a')))?.text).toEqual((await store.get(ref('a')))?.text);
      expect((await there.get(ref('a')))?.text.toString()).toContain(`"of":"${project}"`);
    }
    expect([open.size > 50, process.failures, later.failures]).toEqual([true, [], []]);
  });
});
