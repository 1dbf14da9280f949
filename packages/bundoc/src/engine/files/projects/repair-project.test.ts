import { describe, expect, it } from 'vitest';
import { CliProject } from '../../../testing/cli-project.ts';
import { flip, framesOn } from '../../../testing/log-frames.ts';
import {
  close,
  contentAfter,
  EXPECTED,
  kept,
  made,
  path,
  reopened,
  repair,
} from '../../../testing/made-project.ts';
import type { SimulatedDisk } from '../../../testing/simulated-disk.ts';
import { viewLog } from '../../../testing/test-engine.ts';
import { put } from '../../../testing/writes.ts';
import { statsOfProject } from './project-stats.ts';

describe('repair', () => {
  it('does not change an undamaged project', async () => {
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
    'rebuilds a catalog that is %s from log and files, keeps deletions, and uses no sequence number again',
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
      // Without the catalog, a missing deletion that followers have not seen cannot be detected.
      for (const gone of [1, all.position])
        await expect(store.changes(gone, 10)).rejects.toMatchObject({ code: 'position_gone' });
      const { position } = await store.changes(0, 10);
      await store.commit([put('g', '{"v":"g"}')]);
      const { position: next } = await store.changes(position, 10);
      expect(next).toBeGreaterThan(Math.max(all.position, position));
      await store.checkpoint();
      await close(all, store);
      expect(await contentAfter(all)).toEqual({ ...EXPECTED, g: 'g' });
    },
  );

  it('rebuilds the catalog without parts in the log, above every sequence number that was ever used', async () => {
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

  it('takes each document from the log while the log still has the first part', async () => {
    const missing = await made({ isStartFreed: false });
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
    'restores a project.json that is %s from the head of the catalog, even before the first checkpoint',
    async (what, damage) => {
      for (const isStartFreed of [true, false]) {
        const all = await made({ isStartFreed });
        const original = Buffer.from(all.disk.files().get(path('project.json'))!);
        damage(all.disk);
        flip(all.disk, path('catalog'), -1);
        const { done } = await repair(all);
        expect(done.join()).toContain('restored project.json from the copy of project.json in catalog');
        expect(all.disk.files().get(path('project.json'))).toEqual(original);
        expect(kept(all.disk).filter((one) => one.includes('project.json'))).toHaveLength(
          what === 'missing' ? 0 : 1,
        );
        expect(await contentAfter(all)).toEqual(EXPECTED);
      }
    },
  );

  it('fails and changes nothing when project.json and its copy are both unreadable', async () => {
    const all = await made();
    flip(all.disk, path('project.json'), 0);
    all.disk.tamper(path('catalog'), undefined);
    const before = all.disk.operations;
    await expect(repair(all)).rejects.toThrow(/project.json: .*catalog: is missing/);
    expect(all.disk.operations).toBe(before);
  });

  it('sets aside and lists invalid document files when it rebuilds the catalog', async () => {
    const all = await made();
    all.disk.tamper(path('catalog'), undefined);
    all.disk.tamper(path('docs/stray'), Buffer.from('x'));
    expect((await repair(all)).lost).toEqual([{ file: 'docs/stray' }]);
    expect(kept(all.disk)).toEqual([expect.stringMatching(/docs\.before-repair-.*\/stray$/)]);
    expect(await contentAfter(all)).toEqual(EXPECTED);
  });

  it('leaves no part of the former handle in the log, and no stored index', async () => {
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

  it('finds the parts of a project with only its key when no file names their handle', async () => {
    const all = await made();
    for (const file of all.disk.files().keys())
      if (file.startsWith(path('docs/'))) all.disk.tamper(file, undefined);
    all.disk.tamper(path('catalog'), undefined);
    await repair(all);
    expect(await contentAfter(all)).toEqual({ b: 'new b', e: 'e', f: 'f' });
  });
});

describe('stats', () => {
  it('counts the content of a project and changes nothing', async () => {
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
