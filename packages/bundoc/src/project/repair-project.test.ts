import { describe, expect, it } from 'vitest';
import { put, ref, remove } from '../storage/conformance.ts';
import type { EmbeddedStore } from '../storage/embedded/embedded-store.ts';
import { LossNotAccepted } from '../storage/embedded/rebuild.ts';
import { CliProject } from '../testing/cli-project.ts';
import type { SimulatedDisk, Survival } from '../testing/simulated-disk.ts';
import { statsOfProject } from './project-stats.ts';
import { type RepairedProject, repairProject } from './repair-project.ts';
import { verifyProject } from './verify-project.ts';

const P = '/projects/p/';
/** What the documents of {@link made} are. */
const EXPECTED: Record<string, string> = { a: 'old a', b: 'new b', e: 'e', f: 'f' };

/** Documents in files alone, in both, and in the journal alone; deletions before and after the checkpoint. */
async function made() {
  const project = new CliProject();
  const disk = CliProject.disk();
  const store = await project.open(disk);
  for (const id of ['a', 'b', 'c', 'd']) {
    await store.commit([put(id, `{"v":"old ${id}"}`)]);
    project.clock.advance(5);
  }
  await store.commit([remove('d')]);
  await store.checkpoint();
  await store.commit([put('b', '{"v":"new b"}'), put('e', '{"v":"e"}')]);
  project.clock.advance(5);
  await store.commit([put('f', '{"v":"f"}')]);
  await store.commit([remove('c')]);
  const { position } = await store.changes(0, 100);
  await store[Symbol.asyncDispose]();
  return { project, disk, position };
}

type Made = Pick<Awaited<ReturnType<typeof made>>, 'project' | 'disk'>;

const repair = ({ project, disk }: Made, acceptLoss = false): Promise<RepairedProject> =>
  repairProject(project.place(disk), { clock: project.clock, acceptLoss, onProgress: () => undefined });
const findings = async ({ project, disk }: Made) =>
  (await verifyProject(project.place(disk), () => undefined)).findings;

async function contentOf(store: EmbeddedStore): Promise<Record<string, string>> {
  const content: Record<string, string> = {};
  for (const id of ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']) {
    const document = await store.get(ref(id));
    if (document !== undefined) content[id] = JSON.parse(document.text.toString()).v;
  }
  return content;
}

/** Verifies, opens as the service does, and gives what is there. */
async function reopened(made: Made): Promise<{ store: EmbeddedStore; content: Record<string, string> }> {
  expect(await findings(made)).toEqual([]);
  const store = await made.project.open(made.disk);
  return { store, content: await contentOf(store) };
}

const path = (name: string) => P + name;
const flip = (disk: SimulatedDisk, at: string, offset: number) => {
  const bytes = Buffer.from(disk.files().get(at)!);
  bytes[offset < 0 ? bytes.length + offset : offset]! ^= 1;
  disk.tamper(at, bytes);
};
const kept = (disk: SimulatedDisk) =>
  [...disk.files().keys()].filter((one) => one.includes('.before-repair-'));
function activeSegment(disk: SimulatedDisk): string {
  const segments = [...disk.files()].filter(
    ([at, bytes]) => at.startsWith(path('journal/')) && bytes.subarray(512, 1_024).some((byte) => byte !== 0),
  );
  return segments
    .map(([at]) => at)
    .sort()
    .at(-1)!;
}

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
    ['cut short', (disk) => disk.tamper(path('catalog'), Buffer.from('BUNDOCC1'))],
  ])(
    'rebuilds a catalog that is %s from journal and files; deletions stay, and no number is used again',
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
      // Someone who had followed the feed up to the end is told of everything that the rebuild numbered anew, and nothing else.
      const { changes } = await store.changes(all.position, 10);
      expect(changes.map(({ ref: { id } }) => id)).toEqual(['a']);
      await expect(store.changes(1, 10)).rejects.toMatchObject({ code: 'position_gone' });
      const { position } = await store.changes(0, 10);
      await store.commit([put('g', '{"v":"g"}')]);
      const { position: next } = await store.changes(position, 10);
      expect(next).toBeGreaterThan(Math.max(all.position, position));
      await store.checkpoint();
      await store[Symbol.asyncDispose]();
      expect((await reopened(all)).content).toEqual({ ...EXPECTED, g: 'g' });
    },
  );

  it('rebuilds the catalog when the journal has been freed, above every number that was ever given', async () => {
    const all = await made();
    const first = await all.project.open(all.disk);
    await first.checkpoint();
    await first[Symbol.asyncDispose]();
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
      await store[Symbol.asyncDispose]();
    }
  });

  it.each<[string, string, (disk: SimulatedDisk) => void]>([
    ['project.json', 'missing', (disk) => disk.tamper(path('project.json'), undefined)],
    ['project.json', 'damaged', (disk) => flip(disk, path('project.json'), 0)],
    ['catalog-project.json', 'missing', (disk) => disk.tamper(path('catalog-project.json'), undefined)],
    ['catalog-project.json', 'damaged', (disk) => flip(disk, path('catalog-project.json'), 0)],
  ])('restores a %s that is %s, with the catalog gone as well', async (name, what, damage) => {
    const all = await made();
    const original = Buffer.from(all.disk.files().get(path('project.json'))!);
    damage(all.disk);
    all.disk.tamper(path('catalog'), undefined);
    const { done } = await repair(all);
    expect(done.join()).toContain(name);
    expect(all.disk.files().get(path('project.json'))).toEqual(original);
    expect(all.disk.files().get(path('catalog-project.json'))).toEqual(original);
    expect(kept(all.disk)).toHaveLength(what === 'missing' ? 0 : 1);
    expect((await reopened(all)).content).toEqual(EXPECTED);
  });

  it('says so when neither project.json nor its copy is readable, and changes nothing', async () => {
    const all = await made();
    flip(all.disk, path('project.json'), 0);
    all.disk.tamper(path('catalog-project.json'), undefined);
    const before = all.disk.operations;
    await expect(repair(all)).rejects.toThrow(/project.json: .*catalog-project.json: the file is missing/);
    expect(all.disk.operations).toBe(before);
  });

  it('puts document files aside that are none, and lists them, when it rebuilds the catalog', async () => {
    const all = await made();
    all.disk.tamper(path('catalog'), undefined);
    all.disk.tamper(path('docs/stray'), Buffer.from('x'));
    expect((await repair(all)).lost).toEqual([{ file: 'docs/stray' }]);
    expect(kept(all.disk)).toEqual([expect.stringMatching(/docs\.before-repair-.*\/stray$/)]);
    expect((await reopened(all)).content).toEqual(EXPECTED);
  });
});

describe('a journal that is damaged in the middle', () => {
  /** Two commits more behind the frames of {@link made}; then the frame of `b` and `e` is damaged. */
  async function damaged(withCatalog: boolean) {
    const all = await made();
    const store = await all.project.open(all.disk);
    await store.commit([put('g', '{"v":"g"}')]);
    await store[Symbol.asyncDispose]();
    const before = JSON.stringify(await statsOfProject(all.project.place(all.disk)));
    const segments = [...all.disk.files().keys()].filter((at) => at.startsWith(path('journal/'))).sort();
    const holder = segments.find((at) => {
      const bytes = all.disk.files().get(at)!;
      // The first frame reserves seals.
      return bytes.readUInt32BE(1_028) === 2 && bytes.readUInt32BE(2_052) === 3;
    })!;
    flip(all.disk, holder, 1_112);
    if (!withCatalog) all.disk.tamper(path('catalog'), undefined);
    return { ...all, before, holder };
  }

  it.each([true, false])(
    'is refused without --accept-loss, and nothing is changed (catalog: %s)',
    async (withCatalog) => {
      const all = await damaged(withCatalog);
      const operations = all.disk.operations;
      await expect(repair(all)).rejects.toThrow(LossNotAccepted);
      await expect(repair(all)).rejects.toThrow(/frame 2 is damaged.*may be lost/);
      expect(all.disk.operations).toBe(operations);
    },
  );

  it('keeps every whole frame and what files know, and says which sequence numbers may be lost', async () => {
    const all = await damaged(true);
    const repaired = await repair(all, true);
    expect(repaired.lostSeqs).toEqual([{ from: 6, to: 7 }]);
    // The files of the lost commit had been written; they are all that is left of it.
    expect(repaired).toMatchObject({ adopted: 2, lost: [] });
    const { store, content } = await reopened(all);
    expect(content).toEqual({ ...EXPECTED, g: 'g' });
    expect(kept(all.disk).filter((at) => at.includes('/journal.before-repair-')).length).toBeGreaterThan(0);
    const { changes } = await store.changes(all.position + 1, 10);
    expect(changes.map(({ ref: { id } }) => id).sort()).toEqual(['b', 'e']);
    await store.commit([put('h', '{"v":"h"}')]);
    await store.checkpoint();
    await store[Symbol.asyncDispose]();
    expect((await reopened(all)).content).toEqual({ ...EXPECTED, g: 'g', h: 'h' });
  });

  it('loses what was only in it: listed, gone from the catalog, and told to the change feed', async () => {
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
  });

  it('is repaired with the catalog gone as well', async () => {
    const all = await damaged(false);
    expect(await repair(all, true)).toMatchObject({ lost: [], lostSeqs: [{ from: 1, to: 7 }] });
    expect((await reopened(all)).content).toEqual({ ...EXPECTED, g: 'g' });
  });

  it('whose header is damaged is repaired, and so is one whose folder is gone', async () => {
    const headless = await made();
    flip(headless.disk, activeSegment(headless.disk), 60);
    await expect(repair(headless)).rejects.toThrow(LossNotAccepted);
    expect((await repair(headless, true)).lostSeqs).toEqual([{ from: 6 }]);
    // Deletions that only the journal knew cannot be told from losses: `c` is gone either way, since its file is.
    const { store, content } = await reopened(headless);
    expect(content).toEqual(EXPECTED);
    await store[Symbol.asyncDispose]();

    const bare = await made();
    for (const at of [...bare.disk.files().keys(), path('journal')])
      if (at.startsWith(path('journal'))) bare.disk.tamper(at, undefined);
    expect(await findings(bare)).toContainEqual({ part: 'journal', problem: 'the folder is missing' });
    await expect(repair(bare)).rejects.toThrow(LossNotAccepted);
    expect((await repair(bare, true)).lostSeqs).toEqual([{ from: 6 }]);
    expect((await reopened(bare)).content).toEqual(EXPECTED);
  });
});

describe('a crash at any operation of a repair', () => {
  const survivals: Survival[] = ['synced only', 'everything'];
  let seed = 5;
  const random = () => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed / 2_147_483_647;
  };
  survivals.push({ random }, { random }, { random });

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
    ['the journal', ({ disk }) => flip(disk, activeSegment(disk), 1_112), true],
    ['a segment header', ({ disk }) => flip(disk, activeSegment(disk), 60), true],
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
      const { content } = await reopened(whole);
      for (let operation = 1; operation <= operations; operation++) {
        for (const when of ['before', 'after'] as const) {
          for (const survival of survivals) {
            const disk = before.powerCut('everything');
            disk.failAt({ operation, when, what: 'crash' });
            await repair({ project: whole.project, disk }, acceptLoss).catch(() => undefined);
            const again = { project: whole.project, disk: disk.powerCut(survival) };
            await repair(again, acceptLoss);
            const label = `crash ${when} operation ${operation}: ${whole.disk.trace[start + operation - 1]}`;
            expect((await reopened(again)).content, label).toEqual(content);
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
    expect(await statsOfProject(project.place(disk))).toEqual({
      project: 'p',
      documents: 4,
      tombstones: 2,
      collections: 1,
      sealedBytes: expect.any(Number),
      journalLiveBytes: expect.any(Number),
      keyVersions: [1],
      lastSeq: position,
    });
    expect(disk.operations).toBe(before);
    flip(disk, path('catalog'), -1);
    expect(await statsOfProject(project.place(disk))).toEqual({ project: 'p', error: 'it does not open' });
  });
});
