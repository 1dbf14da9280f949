import { setImmediate } from 'node:timers/promises';
import { parseCatalogHead } from '@bundoc/shared/contract/catalog-head';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { describe, expect, it } from 'vitest';
import { ProjectInFiles } from '../../../testing/project-in-files.ts';
import { SlowSteps } from '../../../testing/slow-steps.ts';
import { logFiles, started } from '../../../testing/started-store.ts';
import { SMALL_LIMITS } from '../../../testing/test-engine.ts';
import { commitOne, put, ref, remove } from '../../../testing/writes.ts';
import type { OwnWork } from '../../../work/work.ts';
import { TOMBSTONE_TTL_MS } from '../../port/port.ts';

describe('the log', () => {
  it('is used again after checkpoints and does not grow', async () => {
    const { disk, store } = await started();
    for (let n = 0; n < 3_000; n++)
      await commitOne(store, put(`d${n % 20}`, `{"n":${n},"pad":"${'x'.repeat(300)}"}`));
    await store.checkpoint();
    const bytes = logFiles(disk).reduce((sum, path) => sum + (disk.files().get(path)?.length ?? 0), 0);
    expect(bytes).toBeLessThanOrEqual(SMALL_LIMITS.log.segmentsMax * SMALL_LIMITS.log.segmentBytes);
  });

  it('is checkpointed while commits continue without a pause', async () => {
    const { disk, store } = await started();
    await commitOne(store, put('a', '{}'));
    let done = false;
    const checkpoint = store.checkpoint().then(() => {
      done = true;
    });
    for (let n = 0; !done; n++) await commitOne(store, put(`d${n % 7}`, `{"n":${n}}`));
    await checkpoint;
    expect(disk.trace.some((line) => line.endsWith(' /p/catalog'))).toBe(true);
  });

  it('a log that has lost a part of a project prevents its opening, and the cause names the part', async () => {
    const { project, disk, store } = await started();
    for (let n = 0; n < 3; n++) await commitOne(store, put(`d${n}`, '{}'));
    await store[Symbol.asyncDispose]();
    const next = disk.powerCut('everything');
    for (const path of logFiles(next)) {
      const bytes = Buffer.from(next.files().get(path)!);
      // In the frame of the second commit; each begins at a page.
      const at = bytes.length > 5 * 4_096 ? bytes.indexOf('BLF1', 3 * 4_096) : -1;
      if (at === -1) continue;
      bytes[at + 260]! ^= 1;
      next.tamper(path, bytes);
    }
    const refused = await project.open(next).catch((error: unknown) => error);
    expect(refused).toMatchObject({ code: 'project_damaged' });
    expect(String((refused as Error).cause)).toMatch(/segment \d, frame \d of the log: a part/);
  });
});

describe('a snapshot that is taken while commits continue', () => {
  const DOCUMENTS = 9_600;
  const idOf = (n: number) => `${n}-${'long'.repeat(60)}`;
  const limits = { log: { ...SMALL_LIMITS.log, segmentsMax: 64 }, checkpointBytes: 1e9 };

  /** @param end when the process dies: at this line of the disk's trace, or after the checkpoint. */
  async function history(end: { line: RegExp; when: 'before' | 'after' } | undefined) {
    const { own: ownWork } = new SlowSteps();
    const project = new ProjectInFiles({ limits, backlogBytesMax: 1e9, ownWork });
    const disk = ProjectInFiles.disk();
    await project.create(disk);
    const store = await project.open(disk);
    const model = new Map<string, string | undefined>();
    for (let from = 0; from < DOCUMENTS; from += 400) {
      const batch = Array.from({ length: 400 }, (_, n) => put(idOf(from + n), '{"v":0}'));
      const results = await store.commit(batch);
      for (const [n, { metadata }] of results.entries()) model.set(idOf(from + n), metadata?._rev);
    }
    // So that the one below is not one that is under way already.
    await store.checkpoint();
    const [changed] = await store.commit([put(idOf(0), '{"v":0}')]);
    model.set(idOf(0), changed?.metadata?._rev);
    if (end !== undefined) disk.failAtLine(end.line, end.when);
    let running = true;
    let commits = 0;
    const checkpoint = store
      .checkpoint()
      .catch(() => undefined)
      .finally(() => {
        running = false;
      });
    const used: { key: string; request: string }[] = [];
    while (running && !disk.crashed) {
      const n = commits++;
      if (n % 8 === 0) await setImmediate();
      // Near both ends of the catalog, so that some were walked over already and some not yet.
      const at = n % 2 === 0 ? n % 50 : DOCUMENTS - 1 - (n % 50);
      const id = n % 5 === 4 ? `new-${n}` : idOf(at);
      const isDelete = n % 3 === 1 && model.get(id) !== undefined;
      const idempotency = { key: n.toString(16).padStart(32, '0'), request: 'a'.repeat(32) };
      try {
        const write = isDelete ? remove(id) : put(id, `{"v":${n}}`);
        const [result] = await Promise.race([store.commit([write], { idempotency }), disk.crashes]);
        model.set(id, result?.metadata?._rev);
        used.push(idempotency);
      } catch (error) {
        if (!disk.crashed) throw error;
      }
    }
    await Promise.race([checkpoint, disk.crashes]).catch(() => undefined);
    expect(commits).toBeGreaterThan(5);
    return { project, disk, model, used };
  }

  it.each([
    ['when it is durable', undefined],
    ['before it is named', { line: /^rename .* \/p\/catalog$/, when: 'before' }],
    ['when it is named, and its name not durable', { line: /^rename .* \/p\/catalog$/, when: 'after' }],
    ['before it is written', { line: /^create \/tmp/, when: 'before' }],
  ] as const)('and the log behind it are the whole state after a power cut %s', async (_name, end) => {
    const { project, disk, model, used } = await history(end);
    for (const survival of ['synced only', 'everything'] as const) {
      const again = await project.open(disk.powerCut(survival));
      const { changes } = await again.changes(0, 1_000_000);
      const found = new Map(changes.map(({ ref: { id }, rev, deleted }) => [id, deleted ? undefined : rev]));
      // Every one but the last, whose answer may not have come.
      let different = 0;
      for (const [id, rev] of model) if (found.get(id) !== rev) different++;
      expect(different).toBeLessThanOrEqual(end === undefined ? 0 : 1);
      expect((await again.get(ref(idOf(DOCUMENTS / 2))))?.metadata._rev).toBe(model.get(idOf(DOCUMENTS / 2)));
      for (const idempotency of used.slice(-5)) {
        const repeated = again.commit([put('none', '{}')], {
          idempotency: { ...idempotency, request: 'b'.repeat(32) },
        });
        await expect(repeated).rejects.toMatchObject({ code: 'idempotency_mismatch' });
      }
    }
  });
});

it('leftover temporary files are removed at the next start', async () => {
  const { project, disk, store } = await started();
  await store[Symbol.asyncDispose]();
  await disk.createFile('/tmp/0123', Buffer.from('half a catalog'));
  const next = disk.restart();
  await project.open(next);
  expect([...next.files().keys()].filter((path) => path.startsWith('/tmp/'))).toEqual([]);
});

describe('an idempotency key', () => {
  it('is remembered by the snapshot when its part of the log is gone', async () => {
    const { project, disk, store } = await started();
    const idempotency = { key: 'a'.repeat(32), request: 'b'.repeat(32) };
    const first = await store.commit([put('a', '{}')], { idempotency });
    await store.checkpoint();
    const again = await project.open(disk.powerCut('synced only'));
    expect(await again.commit([put('a', '{}')], { idempotency })).toEqual(first);
  });
});

describe('the catalog', () => {
  it.each([
    ['missing', () => undefined],
    ['cut short', (bytes: Buffer) => bytes.subarray(0, -5)],
    ['changed', (bytes: Buffer) => Buffer.from(bytes.map((byte, at) => (at === 60 ? byte ^ 1 : byte)))],
    ['empty', () => Buffer.alloc(0)],
  ])('%s is damage, and never a fresh start', async (_name, change) => {
    const { project, disk, store } = await started();
    await commitOne(store, put('a', '{}'));
    await store.checkpoint();
    await store[Symbol.asyncDispose]();
    disk.tamper('/p/catalog', change(disk.files().get('/p/catalog')!));
    await expect(project.open(disk)).rejects.toMatchObject({ code: 'project_damaged' });
  });

  it('a catalog that ends at a chunk before its last one is damage', async () => {
    const { project, disk, store } = await started();
    await commitOne(store, put('a', '{}'));
    await store.checkpoint();
    const bytes = disk.files().get('/p/catalog')!;
    const first = parseCatalogHead(bytes)!.end;
    disk.tamper('/p/catalog', bytes.subarray(0, first + 4 + bytes.readUInt32BE(first)));
    await expect(project.open(disk)).rejects.toMatchObject({ code: 'project_damaged' });
  });

  it('never goes back to an earlier position, even if the last change was a forgotten deletion', async () => {
    const clock = new FakeClock();
    const project = new ProjectInFiles({ clock });
    const disk = ProjectInFiles.disk();
    await project.create(disk);
    const store = await project.open(disk);
    await commitOne(store, put('a', '{}'));
    await commitOne(store, remove('a'));
    const { position } = await store.changes(0, 10);
    clock.advance(TOMBSTONE_TTL_MS + 1);
    await store.checkpoint();
    const again = await project.open(disk.powerCut('synced only'));
    await commitOne(again, put('b', '{}'));
    expect((await again.changes(position, 10)).changes.map(({ ref: { id } }) => id)).toEqual(['b']);
  });

  it('forgets deletions after seven days, and refuses positions from before them', async () => {
    const clock = new FakeClock();
    const project = new ProjectInFiles({ clock });
    const disk = ProjectInFiles.disk();
    await project.create(disk);
    const store = await project.open(disk);
    await commitOne(store, put('a', '{}'));
    const { position } = await store.changes(0, 10);
    await commitOne(store, put('b', '{}'));
    await commitOne(store, remove('b'));
    clock.advance(TOMBSTONE_TTL_MS - 1);
    await store.checkpoint();
    expect((await store.changes(position, 10)).changes).toHaveLength(1);
    clock.advance(2);
    await store.checkpoint();
    await expect(store.changes(position, 10)).rejects.toMatchObject({ code: 'position_gone' });
    expect((await store.changes(0, 10)).changes.map(({ ref: { id } }) => id)).toEqual(['a']);
    await store[Symbol.asyncDispose]();
    const again = await project.open(disk.powerCut('synced only'));
    await expect(again.changes(position, 10)).rejects.toMatchObject({ code: 'position_gone' });
  });
});

describe('a feed that is begun after deletions were forgotten', () => {
  it('is read page by page to its end, and refused only when more deletions are forgotten meanwhile', async () => {
    const clock = new FakeClock();
    const project = new ProjectInFiles({ clock });
    const disk = ProjectInFiles.disk();
    await project.create(disk);
    const store = await project.open(disk);
    for (const id of ['a', 'b', 'c', 'gone']) await commitOne(store, put(id, '{}'));
    await commitOne(store, remove('gone'));
    clock.advance(TOMBSTONE_TTL_MS + 1);
    await store.checkpoint();
    const first = await store.changes(0, 1);
    const second = await store.changes(first.position, 1, first.horizon);
    expect([first, second].flatMap(({ changes }) => changes.map(({ ref: { id } }) => id))).toEqual([
      'a',
      'b',
    ]);
    await commitOne(store, remove('a'));
    clock.advance(TOMBSTONE_TTL_MS + 1);
    await store.checkpoint();
    await expect(store.changes(second.position, 1, second.horizon)).rejects.toMatchObject({
      code: 'position_gone',
    });
  });
});

describe('a catalog with a limit', () => {
  async function opened(options: { tombstonesMax?: number; catalogBytesMax?: number; ownWork?: OwnWork }) {
    const project = new ProjectInFiles(options);
    const disk = ProjectInFiles.disk();
    await project.create(disk);
    return { project, disk, store: await project.open(disk) };
  }

  it('keeps the last deletions, and refuses positions from before them', async () => {
    const { project, disk, store } = await opened({ tombstonesMax: 3 });
    await commitOne(store, put('kept', '{}'));
    const { position } = await store.changes(0, 10);
    for (let n = 0; n < 8; n++) {
      await commitOne(store, put(`d${n}`, '{}'));
      await commitOne(store, remove(`d${n}`));
    }
    const later = (await store.changes(0, 100)).changes.at(-4)?.position ?? 0;
    await store.checkpoint();
    for (const one of [store, await project.open(disk.powerCut('synced only'))]) {
      await expect(one.changes(position, 10)).rejects.toMatchObject({ code: 'position_gone' });
      const { changes } = await one.changes(later, 10);
      expect(changes.map(({ ref: { id }, deleted }) => [id, deleted])).toEqual([
        ['d5', true],
        ['d6', true],
        ['d7', true],
      ]);
      expect((await one.metadata()).size).toBe(4);
    }
  });

  it('refuses new documents when it is full, but accepts changes and deletions', async () => {
    const { store } = await opened({ catalogBytesMax: 200, tombstonesMax: 0 });
    for (const id of ['a', 'b', 'c']) await commitOne(store, put(id, '{}'));
    await expect(store.commit([put('d', '{}')])).rejects.toMatchObject({
      code: 'quota_exceeded',
      detail: expect.stringContaining('delete documents'),
    });
    await commitOne(store, put('a', '{"v":1}'));
    await commitOne(store, remove('b'));
    await store.checkpoint();
    await commitOne(store, put('d', '{}'));
    expect((await store.collections())[0]?.documents).toBe(3);
  });

  it('lets other work run while it is read', async () => {
    const { own: ownWork, scheduler } = new SlowSteps();
    const { project, disk, store } = await opened({ ownWork });
    for (let from = 0; from < 3_000; from += 100)
      await store.commit(Array.from({ length: 100 }, (_, n) => put(`d${from + n}`, '{}')));
    await store.checkpoint();
    const next = disk.powerCut('synced only');
    const before = scheduler.slices;
    const again = await project.open(next);
    expect((await again.collections())[0]?.documents).toBe(3_000);
    expect(scheduler.slices - before).toBeGreaterThan(10);
  });
});
