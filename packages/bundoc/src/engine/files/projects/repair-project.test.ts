import { describe, expect, it } from 'vitest';
import { CliProject } from '../../../testing/cli-project.ts';
import { type FrameOnDisk, flip, framesOn } from '../../../testing/log-frames.ts';
import type { SimulatedDisk } from '../../../testing/simulated-disk.ts';
import type { Survival } from '../../../testing/simulated-file.ts';
import { closeEngine, engineOn, STORAGE_ID, viewLog } from '../../../testing/test-engine.ts';
import { put, ref, remove } from '../../../testing/writes.ts';
import { encodeCarried } from '../log/carried-file.ts';
import type { EmbeddedStore } from '../store/embedded-store.ts';
import { LossNotAccepted } from '../store/rebuild.ts';
import { statsOfProject } from './project-stats.ts';

const P = '/projects/p/';
/** What the documents of {@link made} are. */
const EXPECTED: Record<string, string> = { a: 'old a', b: 'new b', e: 'e', f: 'f' };

/** Documents in files alone, in both, and in the log alone; deletions before and after the checkpoint. */
async function made({ isBirthFreed = true } = {}) {
  const project = new CliProject();
  const disk = CliProject.disk();
  let store = await project.open(disk);
  for (const id of ['a', 'b', 'c', 'd']) {
    await store.commit([put(id, `{"v":"old ${id}"}`)]);
    project.clock.advance(5);
  }
  await store.commit([remove('d')]);
  if (isBirthFreed) {
    await store.checkpoint();
    await store[Symbol.asyncDispose]();
    await closeEngine(disk);
    store = await project.open(disk);
  }
  await store.commit([put('b', '{"v":"new b"}'), put('e', '{"v":"e"}')]);
  project.clock.advance(5);
  await store.commit([put('f', '{"v":"f"}')]);
  await store.commit([remove('c')]);
  const { position } = await store.changes(0, 100);
  await store[Symbol.asyncDispose]();
  await closeEngine(disk);
  return { project, disk, position };
}

type Made = Pick<Awaited<ReturnType<typeof made>>, 'project' | 'disk'>;

const repair = ({ project, disk }: Made, acceptLoss = false) => project.repair(disk, acceptLoss);

async function contentOf(store: EmbeddedStore): Promise<Record<string, string>> {
  const content: Record<string, string> = {};
  for (const id of ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']) {
    const document = await store.get(ref(id));
    if (document !== undefined) content[id] = JSON.parse(document.text.toString()).v;
  }
  return content;
}

/** Verifies, opens as the service does, and gives what is there. */
async function reopened({ project, disk }: Made) {
  expect(await project.findings(disk)).toEqual([]);
  const store = await project.open(disk);
  return { store, content: await contentOf(store) };
}

async function close({ disk }: Made, store: EmbeddedStore): Promise<void> {
  await store[Symbol.asyncDispose]();
  await closeEngine(disk);
}

/** {@link reopened}, and closed again. */
async function contentAfter(made: Made): Promise<Record<string, string>> {
  const { store, content } = await reopened(made);
  await close(made, store);
  return content;
}

const path = (name: string) => P + name;
const kept = (disk: SimulatedDisk) =>
  [...disk.files().keys()].filter((one) => one.includes('.before-repair-'));
/** The frames behind the checkpoint: `b` and `e`, `f`, the deletion of `c`; the first one reserves seals. */
const damageBody = (disk: SimulatedDisk, { path: file, lastByte }: FrameOnDisk) => flip(disk, file, lastByte);
const flipHead = (disk: SimulatedDisk, { path: file, frame }: FrameOnDisk) =>
  flip(disk, file, frame * 4_096 + 60);

describe('repair', () => {
  it('does nothing to a whole project', async () => {
    const all = await made();
    const before = all.disk.operations;
    expect(await repair(all)).toEqual({
      project: 'p',
      faults: [],
      done: [],
      lostSeqs: [],
      lost: [],
      adopted: 0,
    });
    expect(all.disk.operations).toBe(before);
  });

  it.each<[string, (disk: SimulatedDisk) => void]>([
    ['missing', (disk) => disk.tamper(path('catalog'), undefined)],
    ['damaged', (disk) => flip(disk, path('catalog'), -1)],
    ['cut short', (disk) => disk.tamper(path('catalog'), Buffer.from('BUNDOCC2'))],
  ])(
    'rebuilds a catalog that is %s from log and files; deletions stay, and no number is used again',
    async (what, damage) => {
      const all = await made();
      damage(all.disk);
      const { faults, adopted, lost, lostSeqs } = await repair(all);
      expect(faults).toEqual([expect.stringMatching(/^catalog: /)]);
      expect({ adopted, lost, lostSeqs }).toEqual({ adopted: 1, lost: [], lostSeqs: [] });
      expect(kept(all.disk)).toHaveLength(what === 'missing' ? 0 : 1);
      const { store, content } = await reopened(all);
      expect(content).toEqual(EXPECTED);
      const listed = await store.list({ collection: 'notes', after: 0, limit: 10, bytesMax: 1e6 });
      expect(listed.documents.map(({ metadata }) => metadata._id)).toEqual(['a', 'b', 'e', 'f']);
      // Someone who had followed the feed up to the end learns of everything that the rebuild numbered again,
      // and nothing else.
      const { changes } = await store.changes(all.position, 10);
      expect(changes.map(({ ref: { id } }) => id)).toEqual(['a']);
      await expect(store.changes(1, 10)).rejects.toMatchObject({ code: 'position_gone' });
      const { position } = await store.changes(0, 10);
      await store.commit([put('g', '{"v":"g"}')]);
      const { position: next } = await store.changes(position, 10);
      expect(next).toBeGreaterThan(Math.max(all.position, position));
      await store.checkpoint();
      await close(all, store);
      expect(await contentAfter(all)).toEqual({ ...EXPECTED, g: 'g' });
    },
  );

  it('rebuilds the catalog when the log has nothing of the project, above every number that was ever given', async () => {
    const all = await made();
    const first = await all.project.open(all.disk);
    await first.checkpoint();
    await close(all, first);
    // Another project's first write begins a segment, and the others are free then.
    const other = await new CliProject('q').open(all.disk);
    await close(all, other);
    for (let round = 0; round < 2; round++) {
      all.disk.tamper(path('catalog'), undefined);
      expect(await repair(all)).toMatchObject({ adopted: 4, lost: [], lostSeqs: [] });
      const { store, content } = await reopened(all);
      expect(content).toMatchObject(EXPECTED);
      await expect(store.changes(all.position, 10)).rejects.toMatchObject({ code: 'position_gone' });
      let position = 0;
      for (let page = 0; page < 4; page++) position = (await store.changes(position, 1)).position;
      expect((await store.changes(position, 10)).changes).toEqual([]);
      expect(position).toBeGreaterThan(all.position);
      Object.assign(all, { position });
      all.project.clock.advance(1);
      await close(all, store);
    }
  });

  it('takes the log alone for the truth while it leads back to the birth', async () => {
    const missing = await made({ isBirthFreed: false });
    expect(await repair(missing)).toMatchObject({ faults: [], done: [] });
    const store = await missing.project.open(missing.disk);
    await store.checkpoint();
    await close(missing, store);
    flip(missing.disk, path('catalog'), -1);
    expect(await repair(missing)).toMatchObject({ adopted: 0, lost: [], lostSeqs: [] });
    const { store: again, content } = await reopened(missing);
    expect(content).toEqual(EXPECTED);
    const { changes } = await again.changes(0, 100);
    expect(changes.map(({ ref: { id }, deleted }) => (deleted ? `-${id}` : id))).toEqual([
      'a',
      '-d',
      'b',
      'e',
      'f',
      '-c',
    ]);
    expect((await again.changes(0, 100)).position).toBe(missing.position);
    await close(missing, again);
  });

  it.each<[string, (disk: SimulatedDisk) => void]>([
    ['missing', (disk) => disk.tamper(path('project.json'), undefined)],
    ['damaged', (disk) => flip(disk, path('project.json'), 0)],
  ])(
    'restores a project.json that is %s from the head of the catalog, or from the birth',
    async (what, damage) => {
      for (const isBirthFreed of [true, false]) {
        const all = await made({ isBirthFreed });
        const original = Buffer.from(all.disk.files().get(path('project.json'))!);
        damage(all.disk);
        if (isBirthFreed) flip(all.disk, path('catalog'), -1);
        const { done } = await repair(all);
        const from = isBirthFreed ? 'in catalog' : 'in the log';
        expect(done.join()).toContain(`restored project.json from the copy of project.json ${from}`);
        expect(all.disk.files().get(path('project.json'))).toEqual(original);
        expect(kept(all.disk).filter((one) => one.includes('project.json'))).toHaveLength(
          what === 'missing' ? 0 : 1,
        );
        expect(await contentAfter(all)).toEqual(EXPECTED);
      }
    },
  );

  it('says so when neither project.json nor its copy is readable, and changes nothing', async () => {
    const all = await made();
    flip(all.disk, path('project.json'), 0);
    all.disk.tamper(path('catalog'), undefined);
    const before = all.disk.operations;
    await expect(repair(all)).rejects.toThrow(/project.json: .*catalog: is missing.*log: is missing/);
    expect(all.disk.operations).toBe(before);
  });

  it('puts document files aside that are none, and lists them, when it rebuilds the catalog', async () => {
    const all = await made();
    all.disk.tamper(path('catalog'), undefined);
    all.disk.tamper(path('docs/stray'), Buffer.from('x'));
    expect((await repair(all)).lost).toEqual([{ file: 'docs/stray' }]);
    expect(kept(all.disk)).toEqual([expect.stringMatching(/docs\.before-repair-.*\/stray$/)]);
    expect(await contentAfter(all)).toEqual(EXPECTED);
  });

  it('leaves nothing of the former handle in the log, and no kept index', async () => {
    const all = await made();
    const [former] = framesOn(all.disk).at(-1)!.handles;
    all.disk.tamper(path('indexes'), Buffer.from('of the history before'));
    flip(all.disk, path('catalog'), -1);
    expect((await viewLog(all.disk)).handles).toContain(former);
    await repair(all);
    expect((await viewLog(all.disk)).handles).not.toContain(former);
    expect(all.disk.files().has(path('indexes'))).toBe(false);
    const { store } = await reopened(all);
    await store.commit([put('g', '{"v":"g"}')]);
    await close(all, store);
    expect(framesOn(all.disk).at(-1)!.handles).not.toContain(former);
  });

  it('finds the parts of a project by its key alone, when nothing else names their handle', async () => {
    const all = await made();
    for (const file of all.disk.files().keys())
      if (file.startsWith(path('docs/'))) all.disk.tamper(file, undefined);
    all.disk.tamper(path('catalog'), undefined);
    await repair(all);
    expect(await contentAfter(all)).toEqual({ b: 'new b', e: 'e', f: 'f' });
  });
});

describe('parts that are damaged in the middle', () => {
  /** A commit more behind those of {@link made}; then the part of `b` and `e` is damaged. */
  async function damaged(withCatalog: boolean) {
    const all = await made();
    const store = await all.project.open(all.disk);
    await store.commit([put('g', '{"v":"g"}')]);
    await close(all, store);
    const { handles } = framesOn(all.disk).at(-1)!;
    const view = await viewLog(all.disk);
    const live = framesOn(all.disk).filter(({ segment }) => segment >= view.firstLive);
    expect(live.every((one) => one.handles[0] === handles[0])).toBe(true);
    // The first one may reserve seals.
    damageBody(all.disk, live.at(-4)!);
    if (!withCatalog) all.disk.tamper(path('catalog'), undefined);
    return all;
  }

  it.each([true, false])(
    'are refused without --accept-loss, and nothing is changed (catalog: %s)',
    async (withCatalog) => {
      const all = await damaged(withCatalog);
      const operations = all.disk.operations;
      await expect(repair(all)).rejects.toThrow(LossNotAccepted);
      await expect(repair(all)).rejects.toThrow(/parts before this one are damaged or missing.*may be lost/);
      expect(all.disk.operations).toBe(operations);
    },
  );

  it('leave every whole part and what files know, and the sequence numbers that may be lost are listed', async () => {
    const all = await damaged(true);
    const repaired = await repair(all, true);
    expect(repaired.lostSeqs).toEqual([{ from: 6, to: 7 }]);
    // The files of the lost commit had been written; they are all that is left of it.
    expect(repaired).toMatchObject({ adopted: 2, lost: [] });
    const { store, content } = await reopened(all);
    expect(content).toEqual({ ...EXPECTED, g: 'g' });
    const { changes } = await store.changes(all.position + 1, 10);
    expect(changes.map(({ ref: { id } }) => id).sort()).toEqual(['b', 'e']);
    await store.commit([put('h', '{"v":"h"}')]);
    await store.checkpoint();
    await close(all, store);
    expect(await contentAfter(all)).toEqual({ ...EXPECTED, g: 'g', h: 'h' });
  });

  it('lose what was only in them: listed, gone from the catalog, and told to the change feed', async () => {
    const all = await damaged(true);
    for (const at of [...all.disk.files().keys()])
      if (at.startsWith(path('docs/'))) all.disk.tamper(at, undefined);
    const repaired = await repair(all, true);
    expect(repaired.lost.map(({ id }) => id).sort()).toEqual(['a', 'b']);
    const { store, content } = await reopened(all);
    expect(content).toEqual({ f: 'f', g: 'g' });
    const { changes } = await store.changes(all.position + 1, 10);
    expect(changes.map(({ ref: { id }, deleted }) => [id, deleted]).sort()).toEqual([
      ['a', true],
      ['b', true],
    ]);
    await close(all, store);
  });

  it('are repaired with the catalog gone as well', async () => {
    const all = await damaged(false);
    expect(await repair(all, true)).toMatchObject({ lost: [], lostSeqs: [{ from: 1, to: 7 }] });
    expect(await contentAfter(all)).toEqual({ ...EXPECTED, g: 'g' });
  });

  it('are noticed with the catalog gone where they are the first that the log still has', async () => {
    const all = await made();
    const { firstLive } = await viewLog(all.disk);
    const [first] = framesOn(all.disk).filter(({ segment }) => segment >= firstLive);
    damageBody(all.disk, first!);
    all.disk.tamper(path('catalog'), undefined);
    await expect(repair(all)).rejects.toThrow(/parts before this one are damaged or missing.*may be lost/);
  });

  it('are lost at the end of the log only with --accept-loss, and later commits have other numbers', async () => {
    const all = await made();
    damageBody(all.disk, framesOn(all.disk).at(-1)!);
    await expect(repair(all)).rejects.toThrow(
      /the last part is damaged or missing; commits from 9 on may be lost/,
    );
    const { lostSeqs } = await repair(all, true);
    expect(lostSeqs).toEqual([{ from: 9 }]);
    const { store, content } = await reopened(all);
    // The deletion of `c` was lost. Its file is gone.
    expect(content).toEqual(EXPECTED);
    await store.commit([put('g', '{"v":"g"}')]);
    expect((await store.changes(0, 100)).position).toBeGreaterThan(1e9);
    await close(all, store);
  });

  it('of a large commit give up the whole commit, and no other', async () => {
    const all = await made();
    const store = await all.project.open(all.disk);
    await store.commit([put('g', JSON.stringify({ v: 'g'.repeat(20_000) }))]);
    await store.commit([put('h', '{"v":"h"}')]);
    await close(all, store);
    for (const at of [...all.disk.files().keys()])
      if (at.startsWith(path('docs/'))) all.disk.tamper(at, undefined);
    // The frame before the last has the end of the large commit, and the one before that a chunk of it.
    damageBody(all.disk, framesOn(all.disk).at(-3)!);
    flip(all.disk, path('catalog'), -1);
    expect((await repair(all, true)).lostSeqs).toEqual([{ from: 10, to: 10 }]);
    expect(await contentAfter(all)).toEqual({ b: 'new b', e: 'e', f: 'f', h: 'h' });
  });
});

describe('carried parts', () => {
  /** {@link made}, with the parts of the log in the project's folder. */
  async function carried() {
    const all = await made();
    const store = await all.project.open(all.disk);
    await close(all, store);
    const view = await viewLog(all.disk);
    const [handle] = framesOn(all.disk).at(-1)!.handles as [string];
    const bySegment = new Map<number, Parameters<typeof encodeCarried>[0]>();
    for await (const part of view.partsOf(new Set([handle]))) {
      const { segment } = part.place;
      const parts = [...(bySegment.get(segment)?.parts ?? []), { ...part, body: Buffer.from(part.body) }];
      const { segmentId, place: newest } = part;
      bySegment.set(segment, { storageId: STORAGE_ID, handle, segment, segmentId, newest, parts });
    }
    await all.disk.makeDirectory(path('carried'));
    await all.disk.syncDirectory('/projects/p');
    for (const [segment, content] of bySegment)
      all.disk.tamper(path(`carried/${segment}`), encodeCarried(content));
    return { ...all, handle };
  }

  it('are brought in where the log has them no more, or damaged', async () => {
    const all = await carried();
    for (const frame of framesOn(all.disk)) damageBody(all.disk, frame);
    flip(all.disk, path('catalog'), -1);
    expect(await repair(all)).toMatchObject({ lost: [], lostSeqs: [] });
    expect(kept(all.disk).some((one) => one.includes('/carried.before-repair-'))).toBe(true);
    expect([...all.disk.files().keys()].filter((one) => one.startsWith(path('carried/')))).toEqual([]);
    expect(await contentAfter(all)).toEqual(EXPECTED);
  });

  it('that are damaged are given up with --accept-loss alone, and kept beside', async () => {
    const all = await carried();
    const [file] = [...all.disk.files().keys()].filter((one) => one.startsWith(path('carried/')));
    flip(all.disk, file!, -1);
    await expect(repair(all)).rejects.toThrow(/carried.*is damaged/);
    await repair(all, true);
    expect(await contentAfter(all)).toEqual(EXPECTED);
  });
});

describe('a hole in the log of which nothing says whose it was', () => {
  async function doubtful() {
    const all = await made();
    const other = await new CliProject('q').open(all.disk);
    await other.commit([put('x', '{}')]);
    await other.commit([put('y', '{}')]);
    await other.commit([put('z', '{}')]);
    await close(all, other);
    const frames = framesOn(all.disk);
    const [handle] = frames.at(-1)!.handles;
    const own = frames.filter(
      ({ handles, segment }) => handles[0] === handle && segment === frames.at(-1)!.segment,
    );
    flipHead(all.disk, own.at(-3)!);
    flipHead(all.disk, own.at(-2)!);
    return all;
  }

  it('is refused without --accept-loss, and with it the project opens, and keeps on opening', async () => {
    const all = await doubtful();
    expect(await all.project.findings(all.disk)).toMatchObject([
      { part: 'log', problem: expect.stringMatching(/lost/) },
    ]);
    await expect(repair(all)).rejects.toThrow(LossNotAccepted);
    expect(await repair(all, true)).toMatchObject({ lost: [], lostSeqs: [{ from: 10 }] });
    expect((await viewLog(all.disk)).damage.join()).toMatch(/nothing says whose parts/);
    const { store, content } = await reopened(all);
    expect(content).toEqual(EXPECTED);
    await store.commit([put('g', '{"v":"g"}')]);
    await store.checkpoint();
    await close(all, store);
    expect(await contentAfter(all)).toEqual({ ...EXPECTED, g: 'g' });
  });

  it('is over for every project once an administrator accepts the loss', async () => {
    const all = await doubtful();
    await (await engineOn(all.disk, { clock: all.project.clock })).acceptLoss();
    await closeEngine(all.disk);
    expect(await contentAfter(all)).toEqual(EXPECTED);
  });
});

describe('a crash at any operation of a repair', () => {
  const survivals: Survival[] = ['synced only', 'everything'];
  let seed = 5;
  const random = () => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed / 2_147_483_647;
  };
  survivals.push({ random });

  it.each<[string, (all: Made) => void, boolean]>([
    [
      'the catalog and project.json',
      ({ disk }) => {
        flip(disk, path('catalog'), -1);
        flip(disk, path('project.json'), 0);
        disk.tamper(path('docs/stray'), Buffer.from('x'));
      },
      false,
    ],
    ['parts of the log', ({ disk }) => damageBody(disk, framesOn(disk).at(-2)!), true],
  ])(
    'of %s leaves a project that can be repaired again, to the same documents',
    async (_what, damage, acceptLoss) => {
      const whole = await made();
      damage(whole);
      const before = whole.disk.powerCut('everything');
      const start = whole.disk.operations;
      await repair(whole, acceptLoss);
      const operations = whole.disk.operations - start;
      expect(operations).toBeGreaterThan(5);
      const content = await contentAfter(whole);
      for (let operation = 1; operation <= operations; operation++) {
        for (const when of ['before', 'after'] as const) {
          for (const survival of survivals) {
            const disk = before.powerCut('everything');
            disk.failAt({ operation, when, what: 'crash' });
            await repair({ project: whole.project, disk }, acceptLoss).catch(() => undefined);
            const again = { project: whole.project, disk: disk.powerCut(survival) };
            await repair(again, acceptLoss);
            const label = `crash ${when} operation ${operation}: ${whole.disk.trace[start + operation - 1]}`;
            expect(await contentAfter(again), label).toEqual(content);
          }
        }
      }
    },
  );
});

describe('stats', () => {
  it('counts what a project holds, and changes nothing', async () => {
    const { project, disk, position } = await made();
    const before = disk.operations;
    expect(await statsOfProject(await project.place(disk))).toEqual({
      project: 'p',
      documents: 4,
      tombstones: 2,
      collections: 1,
      sealedBytes: expect.any(Number),
      logBytes: expect.any(Number),
      keyVersions: [1],
      lastSeq: position,
    });
    expect(disk.operations).toBe(before);
    flip(disk, path('catalog'), -1);
    expect(await statsOfProject(await project.place(disk))).toEqual({
      project: 'p',
      error: 'it does not open',
    });
  });
});
