import { createSecretKey, randomBytes } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { parseCatalogHead } from '@bundoc/shared/contract/catalog-head';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { describe, expect, it } from 'vitest';
import { type DekVersion, ProjectCipher } from '../../cipher/project-cipher.ts';
import { SimulatedDisk } from '../../testing/simulated-disk.ts';
import { closeEngine, engineOn, SMALL_LIMITS, STORAGE_ID } from '../../testing/test-engine.ts';
import { describeProjectStore, put, ref, remove } from '../conformance.ts';
import type { Write } from '../port.ts';
import { Backlog } from './backlog.ts';
import type { EmbeddedStore } from './embedded-store.ts';
import { FilesEngine } from './files-engine.ts';
import { SEAL_LIMITS } from './seal-budget.ts';
import { createSealedCache } from './sealed-cache.ts';

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

  async open(project: string, projectFile = fileOf(project)): Promise<EmbeddedStore> {
    const engine = await this.engine;
    await engine.writeBirth(project, folderOf(project));
    return engine.openStore({
      ...{ project, directory: folderOf(project), projectFile, disk: this.disk },
      ...{ cipher: this.keys.of(project), clock: new FakeClock(), cache: createSealedCache(0) },
      onIntegrityError: (fileName) => this.failures.push(fileName),
      onFailure: (error) => this.failures.push(error),
      onRotationDue: () => undefined,
      sealLimits: SEAL_LIMITS,
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
        const texts = await Promise.all([first, second].map((store) => store.get(ref(`busy-${n}`))));
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

  it('and comes back within one segment has nothing of before, and a copy of its former folder is damage', async () => {
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
