import { setImmediate } from 'node:timers/promises';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { openDefinedStore } from '../../../collections/defined-store.ts';
import { ProjectInFiles } from '../../../testing/project-in-files.ts';
import { commitOne, put, remove } from '../../../testing/writes.ts';
import type { DocumentPage } from '../../port/port.ts';
import { type StoreSnapshot, shownPosition } from '../../port/snapshot-port.ts';
import { KeptMemory } from './kept-memory.ts';
import { RETAINED_MAX, RETAINED_MS } from './project-snapshots.ts';

afterEach(() => void vi.restoreAllMocks());

async function start({ cacheBytes = 0, keptBytes = 1e9 } = {}) {
  const timers: (() => void)[] = [];
  const memory = new KeptMemory(keptBytes);
  const project = new ProjectInFiles({
    keptMemory: memory,
    retainLater: (task, ms) => {
      expect(ms).toBe(RETAINED_MS);
      timers.push(task);
      return setTimeout(() => undefined, 0).unref();
    },
  });
  const disk = ProjectInFiles.disk();
  await project.create(disk);
  const store = await project.open(disk, cacheBytes);
  const minute = () => {
    for (const task of timers.splice(0)) task();
  };
  return { project, disk, store, memory, minute, reopen: () => project.open(disk, cacheBytes) };
}

const all = { after: 0, limit: 1_000, bytesMax: 1e9 };
const gone = { code: 'snapshot_too_old' };
const idsOf = ({ documents }: DocumentPage) => documents.map(({ metadata }) => metadata._id);
const idsIn = async (snapshot: StoreSnapshot) => idsOf(await snapshot.list(all));

describe('a snapshot', () => {
  it('delays no commit, even if the disk does not answer when a former document must be read', async () => {
    const { store, disk } = await start();
    await commitOne(store, put('a', '{"v":1}'));
    await store.checkpoint();
    using snapshot = store.snapshot('notes');
    const read = disk.read.bind(disk);
    const held = Promise.withResolvers<void>();
    vi.spyOn(disk, 'read').mockImplementation(async (...args) => {
      await held.promise;
      return read(...args);
    });
    await commitOne(store, put('a', '{"v":2}'));
    await commitOne(store, put('a', '{"v":3}'));
    const former = snapshot.get('a');
    let isRead = false;
    void Promise.resolve(former).then(() => {
      isRead = true;
    });
    for (let turn = 0; turn < 20; turn++) await setImmediate();
    expect(isRead).toBe(false);
    held.resolve();
    expect((await former)?.text.toString()).toContain('"v":1');
    expect((await store.get({ collection: 'notes', id: 'a' }))?.text.toString()).toContain('"v":3');
  });

  it('has large documents of its own: the cache frees those that are overwritten', async () => {
    const { store } = await start({ cacheBytes: 1_000_000 });
    await commitOne(store, put('a', `{"v":1,"pad":"${'x'.repeat(100_000)}"}`));
    await store.checkpoint();
    await store.get({ collection: 'notes', id: 'a' });
    using snapshot = store.snapshot('notes');
    await commitOne(store, put('a', `{"v":2,"pad":"${'y'.repeat(100_000)}"}`));
    await store.get({ collection: 'notes', id: 'a' });
    expect((await snapshot.get('a'))?.text.toString()).toContain('"v":1');
    await commitOne(store, remove('a'));
    await store.checkpoint();
    expect((await snapshot.get('a'))?.text.toString()).toContain('"v":1');
  });

  it('continues while its documents are re-sealed, which keeps nothing', async () => {
    const { project, store, memory, reopen } = await start();
    for (const id of ['a', 'b']) await commitOne(store, put(id, '{"v":1}'));
    await store[Symbol.asyncDispose]();
    project.rotate();
    const rotated = await reopen();
    using snapshot = rotated.snapshot('notes');
    const { asOf } = snapshot;
    expect((await rotated.reseal(10)).resealed).toBe(2);
    expect([memory.bytes, await idsIn(snapshot)]).toEqual([0, ['a', 'b']]);
    await commitOne(rotated, put('a', '{"v":2}'));
    using again = rotated.snapshot('notes', { asOf });
    for (const one of [snapshot, again]) expect((await one.get('a'))?.text.toString()).toContain('"v":1');
  });

  it('does not use an index that became ready after a change that it does not show', async () => {
    const { store } = await start();
    await commitOne(store, put('a', '{"v":1}'));
    using before = store.snapshot('notes');
    await commitOne(store, put('a', '{"v":2}'));
    using after = store.snapshot('notes');
    const spec = { name: 'v', fields: ['v'], unique: false };
    store.indexes.define('notes', [spec], { rev: '1', wasDefined: false });
    await store.indexes.built();
    await commitOne(store, put('b', '{"v":3}'));
    const index = { ...spec, isMultiple: false };
    const everything = { ranges: [{ low: '', high: '\u0100' }], backwards: false, limit: 10, bytesMax: 1e9 };
    expect(await before.usable()).toEqual([]);
    expect(await before.search?.({ index, ...everything })).toBeUndefined();
    expect(await after.usable()).toMatchObject([{ name: 'v' }]);
    expect(await after.search?.({ index, ...everything })).toMatchObject({ entries: [{ id: 'a' }] });
  });

  it('says that documents have several entries in an index while some of its own have', async () => {
    const { store } = await start();
    store.indexes.define('notes', [{ name: 'v', fields: ['v'], unique: false }], {
      rev: '1',
      wasDefined: false,
    });
    await store.indexes.built();
    await commitOne(store, put('a', '{"v":[1,2]}'));
    using snapshot = store.snapshot('notes');
    await commitOne(store, put('a', '{"v":1}'));
    expect(await snapshot.usable()).toMatchObject([{ isMultiple: true }]);
    snapshot[Symbol.dispose]();
    using present = store.snapshot('notes');
    expect(await present.usable()).toMatchObject([{ isMultiple: false }]);
  });

  it('leaves out what had expired when it was taken, and nothing that expires later', async () => {
    const { store, project } = await start();
    const defined = await openDefinedStore(store, project.clock);
    await defined.define('notes', { indexes: [], ttl: { field: 'until', seconds: 10 } }, { kind: 'none' });
    const at = (ms: number) => `{"until":"${new Date(project.clock.now() + ms).toISOString()}"}`;
    await commitOne(defined, put('expired', at(-20_000)));
    await commitOne(defined, put('alive', at(0)));
    using snapshot = await defined.snapshot('notes');
    vi.spyOn(project.clock, 'now').mockReturnValue(project.clock.now() + 30_000);
    expect([await idsIn(snapshot), (await snapshot.get('alive'))?.metadata._id]).toEqual([
      ['alive'],
      'alive',
    ]);
    using later = await defined.snapshot('notes', { asOf: snapshot.asOf });
    expect(await idsIn(later)).toEqual([]);
  });
});

describe('the state of an earlier answer', () => {
  it('is there again while the collection has not changed, also after the project was closed', async () => {
    const { store, reopen } = await start();
    await commitOne(store, put('a', '{}'));
    const { asOf } = store.snapshot('notes');
    await store[Symbol.asyncDispose]();
    const opened = await reopen();
    await commitOne(opened, { ...put('x', '{}'), ref: { collection: 'others', id: 'x' } });
    expect(await idsIn(opened.snapshot('notes', { asOf }))).toEqual(['a']);
    await commitOne(opened, remove('a'));
    expect(await idsIn(opened.snapshot('notes'))).toEqual([]);
    await opened[Symbol.asyncDispose]();
    const last = await reopen();
    expect(() => last.snapshot('notes', { asOf })).toThrow('snapshot_too_old');
    const beyond = (await last.position()) + 1;
    expect(() => last.snapshot('notes', { asOf: beyond })).toThrow('invalid_request');
  });

  it('is kept for a minute after an answer with more pages, and four of a project', async () => {
    const { store, minute, memory } = await start();
    const positions: number[] = [];
    for (let n = 0; n <= RETAINED_MAX; n++) {
      await commitOne(store, put('a', `{"v":${n}}`));
      using snapshot = store.snapshot('notes');
      snapshot.retain?.();
      positions.push(shownPosition(snapshot));
    }
    await commitOne(store, put('a', '{"v":9}'));
    const [oldest = 0, ...kept] = positions;
    expect(() => store.snapshot('notes', { asOf: oldest })).toThrow('snapshot_too_old');
    for (const [at, asOf] of kept.entries()) {
      using snapshot = store.snapshot('notes', { asOf });
      expect((await snapshot.get('a'))?.text.toString()).toContain(`"v":${at + 1}`);
    }
    minute();
    for (const asOf of kept) expect(() => store.snapshot('notes', { asOf })).toThrow('snapshot_too_old');
    expect(memory.bytes).toBe(0);
  });
});

describe('the memory of snapshots', () => {
  it('is bounded: states that nobody reads end first, then the oldest, and writes go on', async () => {
    const { store, memory } = await start({ keptBytes: 8_000 });
    const fill = async (v: number) => {
      for (const id of ['a', 'b']) await commitOne(store, put(id, `{"v":${v},"pad":"${'x'.repeat(600)}"}`));
    };
    await fill(0);
    using oldest = store.snapshot('notes');
    await fill(1);
    const retained = store.snapshot('notes');
    const { asOf } = retained;
    retained.retain?.();
    retained[Symbol.dispose]();
    expect(memory.dropped).toBe(0);
    await fill(2);
    expect(memory.dropped).toBe(1);
    expect(() => store.snapshot('notes', { asOf })).toThrow('snapshot_too_old');
    expect(await idsIn(oldest)).toEqual(['a', 'b']);
    using newer = store.snapshot('notes');
    await fill(3);
    expect(memory.dropped).toBe(2);
    await expect(oldest.list(all)).rejects.toMatchObject(gone);
    expect((await newer.list(all)).documents.map(({ text }) => text.includes('"v":2'))).toEqual([true, true]);
    expect(memory.bytes).toBeLessThanOrEqual(4_000);
  });

  it('is taken from no collection that keeps nothing', async () => {
    const { store, memory } = await start({ keptBytes: 12_000 });
    await commitOne(store, { ...put('q', '{}'), ref: { collection: 'quiet', id: 'q' } });
    using quiet = store.snapshot('quiet');
    await commitOne(store, put('a', '{}'));
    using busy = store.snapshot('notes');
    await commitOne(store, put('a', JSON.stringify({ pad: 'x'.repeat(8_000) })));
    using later = store.snapshot('notes');
    await commitOne(store, put('a', '{}'));
    expect(memory.dropped).toBeGreaterThan(0);
    await expect(later.list(all)).rejects.toMatchObject(gone);
    await expect(busy.list(all)).rejects.toMatchObject(gone);
    expect(await idsIn(quiet)).toEqual(['q']);
  });

  it('is small for a state that only waits for later pages', async () => {
    const { store, memory } = await start({ keptBytes: 64_000 });
    const fill = (v: number) =>
      store.commit(
        ['a', 'b', 'c', 'd', 'e'].map((id) => put(id, JSON.stringify({ v, pad: 'x'.repeat(500) }))),
      );
    await fill(1);
    const first = store.snapshot('notes');
    first.retain?.();
    first[Symbol.dispose]();
    await fill(2);
    expect([memory.bytes, memory.dropped]).toEqual([0, 0]);
    expect(() => store.snapshot('notes', { asOf: shownPosition(first) })).toThrow('snapshot_too_old');
  });

  it('is taken from the project that keeps most', () => {
    const memory = new KeptMemory(100);
    const owner = (name: string) => {
      const made = { name, bytes: 0, hasUnread: false, dropped: 0, dropOne: (): void => undefined };
      made.dropOne = () => {
        made.dropped++;
        const bytes = made.bytes;
        made.bytes = 0;
        memory.count(made, -bytes);
      };
      const keep = (bytes: number) => {
        made.bytes += bytes;
        memory.count(made, bytes);
      };
      return { made, keep };
    };
    const [small, large, other] = [owner('small'), owner('large'), owner('other')];
    small.keep(10);
    large.keep(45);
    other.keep(40);
    other.keep(8);
    const dropped = [small, large, other].map(({ made }) => made.dropped);
    expect([dropped, memory.bytes]).toEqual([[0, 0, 1], 55]);
    large.made.hasUnread = true;
    other.keep(50);
    expect([small, large, other].map(({ made }) => made.dropped)).toEqual([0, 1, 1]);
    small.keep(45);
    expect([small.made.dropped, memory.dropped]).toEqual([1, 3]);
  });
});
