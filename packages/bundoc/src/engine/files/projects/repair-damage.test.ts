import { describe, expect, it } from 'vitest';
import { CliProject } from '../../../testing/cli-project.ts';
import { flip, framesOn } from '../../../testing/log-frames.ts';
import {
  close,
  contentAfter,
  damageBody,
  EXPECTED,
  flipHead,
  kept,
  type Made,
  made,
  path,
  reopened,
  repair,
} from '../../../testing/made-project.ts';
import type { Survival } from '../../../testing/simulated-file.ts';
import { closeEngine, engineOn, STORAGE_ID, viewLog } from '../../../testing/test-engine.ts';
import { put } from '../../../testing/writes.ts';
import { encodeCarried } from '../log/carried-file.ts';
import { LossNotAccepted } from '../store/rebuild.ts';

describe('damaged parts of the log', () => {
  /** Adds a commit to those of {@link made}, and damages the part of `b` and `e`. */
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

  it('leave undamaged parts and files, and the repair lists the sequence numbers that may be lost', async () => {
    const all = await damaged(true);
    const repaired = await repair(all, true);
    expect(repaired.lostSeqs).toEqual([{ from: 6, to: 7 }]);
    // Only the files of the lost commit are left, because they had been written.
    expect(repaired).toMatchObject({ adopted: 2, lost: [] });
    const { store, content } = await reopened(all);
    expect(content).toEqual({ ...EXPECTED, g: 'g' });
    // A follower that may have read the lost commit must restart, because its changes are unknown.
    for (const gone of [5, all.position + 1])
      await expect(store.changes(gone, 10)).rejects.toMatchObject({ code: 'position_gone' });
    const { changes } = await store.changes(0, 10);
    expect(changes.map(({ ref: { id } }) => id)).toEqual(['a', 'd', 'f', 'c', 'g', 'b', 'e']);
    await store.commit([put('h', '{"v":"h"}')]);
    await store.checkpoint();
    await close(all, store);
    expect(await contentAfter(all)).toEqual({ ...EXPECTED, g: 'g', h: 'h' });
  });

  it('lose documents without another copy: the repair lists them, and the change feed reports deletions', async () => {
    const all = await damaged(true);
    for (const at of [...all.disk.files().keys()])
      if (at.startsWith(path('docs/'))) all.disk.tamper(at, undefined);
    const repaired = await repair(all, true);
    expect(repaired.lost.map(({ id }) => id).sort()).toEqual(['a', 'b']);
    const { store, content } = await reopened(all);
    expect(content).toEqual({ f: 'f', g: 'g' });
    const { changes } = await store.changes(0, 10);
    expect(changes.map(({ ref: { id }, deleted }) => [id, deleted])).toEqual([
      ['d', true],
      ['f', false],
      ['c', true],
      ['g', false],
      ['a', true],
      ['b', true],
    ]);
    await close(all, store);
  });

  it('are repaired even when the catalog is missing, too', async () => {
    const all = await damaged(false);
    expect(await repair(all, true)).toMatchObject({ lost: [], lostSeqs: [{ from: 1, to: 7 }] });
    expect(await contentAfter(all)).toEqual({ ...EXPECTED, g: 'g' });
  });

  it('are detected without the catalog, even when they are the oldest parts in the log', async () => {
    const all = await made();
    const { firstLive } = await viewLog(all.disk);
    const [first] = framesOn(all.disk).filter(({ segment }) => segment >= firstLive);
    damageBody(all.disk, first!);
    all.disk.tamper(path('catalog'), undefined);
    await expect(repair(all)).rejects.toThrow(/parts before this one are damaged or missing.*may be lost/);
  });

  it('damaged parts at the end of the log are given up only with --accept-loss, and numbers are not reused', async () => {
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

  it('damaged parts of a large commit lose this whole commit and no other one', async () => {
    const all = await made();
    const store = await all.project.open(all.disk);
    await store.commit([put('g', JSON.stringify({ v: 'g'.repeat(20_000) }))]);
    await store.commit([put('h', '{"v":"h"}')]);
    await close(all, store);
    for (const at of [...all.disk.files().keys()])
      if (at.startsWith(path('docs/'))) all.disk.tamper(at, undefined);
    // The last frame but one has the end of the large commit, and the frame before has a chunk of it.
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

  it('are used where the parts in the log are freed or damaged', async () => {
    const all = await carried();
    for (const frame of framesOn(all.disk)) damageBody(all.disk, frame);
    flip(all.disk, path('catalog'), -1);
    expect(await repair(all)).toMatchObject({ lost: [], lostSeqs: [] });
    expect(kept(all.disk).some((one) => one.includes('/carried.before-repair-'))).toBe(true);
    expect([...all.disk.files().keys()].filter((one) => one.startsWith(path('carried/')))).toEqual([]);
    expect(await contentAfter(all)).toEqual(EXPECTED);
  });

  it('are given up when they are damaged, but only with --accept-loss, and their files are kept', async () => {
    const all = await carried();
    const [file] = [...all.disk.files().keys()].filter((one) => one.startsWith(path('carried/')));
    flip(all.disk, file!, -1);
    await expect(repair(all)).rejects.toThrow(/carried.*is damaged/);
    await repair(all, true);
    expect(await contentAfter(all)).toEqual(EXPECTED);
  });
});

describe('a hole in the log of unknown projects', () => {
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

  it('prevents a repair without --accept-loss; with it, the project opens from then on', async () => {
    const all = await doubtful();
    expect(await all.project.findings(all.disk)).toMatchObject([
      { part: 'log', problem: expect.stringMatching(/lost/) },
    ]);
    await expect(repair(all)).rejects.toThrow(LossNotAccepted);
    expect(await repair(all, true)).toMatchObject({ lost: [], lostSeqs: [{ from: 10 }] });
    expect((await viewLog(all.disk)).damage.join()).toMatch(/their projects are unknown/);
    const { store, content } = await reopened(all);
    expect(content).toEqual(EXPECTED);
    await store.commit([put('g', '{"v":"g"}')]);
    await store.checkpoint();
    await close(all, store);
    expect(await contentAfter(all)).toEqual({ ...EXPECTED, g: 'g' });
  });

  it('affects no project after an administrator has accepted the loss', async () => {
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
    'a crash during a repair of %s leaves a project that a second repair restores to the same documents',
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
            // A crash before the log knows the new handle looks like an older copy of the folder.
            await repair(again, true);
            const label = `crash ${when} operation ${operation}: ${whole.disk.trace[start + operation - 1]}`;
            expect(await contentAfter(again), label).toEqual(content);
          }
        }
      }
    },
  );
});
