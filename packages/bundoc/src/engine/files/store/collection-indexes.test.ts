import { setImmediate } from 'node:timers/promises';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { type DefinedStore, openDefinedStore } from '../../../collections/defined-store.ts';
import { cursorsOf } from '../../../crypto/sealed-cursor.ts';
import { holdLogWrites } from '../../../testing/held-log-writes.ts';
import { ProjectInFiles } from '../../../testing/project-in-files.ts';
import type { SimulatedDisk } from '../../../testing/simulated-disk.ts';
import { SlowSteps } from '../../../testing/slow-steps.ts';
import { commitOne, put, remove } from '../../../testing/writes.ts';
import { encodeKeyPart } from '../../../values/key.ts';
import { Scheduler } from '../../../work/scheduler.ts';
import { describeOrder } from '../../conformance/order-conformance.ts';
import { describeIndexes } from '../../indexes/conformance.ts';

const open: DefinedStore[] = [];
afterEach(async () => {
  for (const store of open.splice(0)) await store[Symbol.asyncDispose]();
});

async function start() {
  const project = new ProjectInFiles();
  const disk = ProjectInFiles.disk();
  await project.create(disk);
  const reopen = async (on: SimulatedDisk = disk) => {
    const store = await openDefinedStore(await project.open(on), project.clock);
    open.push(store);
    return store;
  };
  return { project, disk, reopen, store: await reopen() };
}

const NONE = { kind: 'none' } as const;
const violation = { code: 'unique_violation', detail: expect.stringContaining('"email"') };

/** Ids with a value in an index, in its order. */
async function idsAt(
  store: DefinedStore,
  name: string,
  value: string,
): Promise<readonly string[] | undefined> {
  const low = encodeKeyPart(value);
  using snapshot = await store.snapshot('notes');
  const page = await snapshot.search?.({
    index: { name, fields: [name], isMultiple: true },
    ranges: [{ low, high: `${low}\u0100` }],
    backwards: false,
    limit: 1_000,
    bytesMax: 1e9,
  });
  return page?.entries.map(({ id }) => id);
}

describeIndexes('the files engine', async () => {
  const { store, reopen, disk } = await start();
  return { store, reopen: () => reopen(disk.powerCut('synced only')) };
});

describeOrder('the files engine', async () => {
  const { project, store, reopen, disk } = await start();
  const cursors = cursorsOf('p', project.cipher);
  return { store, cursors, reopen: () => reopen(disk.powerCut('synced only')) };
});

describe('the index entries of one commit', () => {
  it('are bounded, whether it adds or removes them', async () => {
    const log = { segmentBytes: 2_097_152, segmentsMin: 4, segmentsMax: 16 };
    const limits = {
      log: { ...log, frameBytes: 1_048_576, chunkBytes: 262_144 },
      checkpointBytes: 4_194_304,
    };
    const project = new ProjectInFiles({ limits });
    const disk = ProjectInFiles.disk();
    await project.create(disk);
    const store = await openDefinedStore(await project.open(disk), project.clock);
    open.push(store);
    await store.define('notes', { indexes: [{ fields: ['g'], unique: false }] }, NONE);
    const many = (at: number) => `{"g":[${Array.from({ length: 990 }, (_, n) => at * 1_000 + n).join()}]}`;
    const writes = Array.from({ length: 55 }, (_, at) => put(`d${at}`, many(at)));
    const tooMany = { code: 'payload_too_large', detail: expect.stringContaining('50000 entries') };
    await expect(store.commit(writes)).rejects.toMatchObject(tooMany);
    expect(store.indexes?.status('notes')[0]).toMatchObject({ state: 'ready' });
    for (let from = 0; from < 55; from += 11) await store.commit(writes.slice(from, from + 11));
    await expect(store.commit(writes.map((_, at) => remove(`d${at}`)))).rejects.toMatchObject(tooMany);
    await expect(store.commit(writes.map((_, at) => put(`d${at}`, '{}')))).rejects.toMatchObject(tooMany);
    await store.commit(writes.slice(0, 50).map((_, at) => remove(`d${at}`)));
  });
});

describe('a unique index', () => {
  it('is ready only once commits planned before it are readable, and counts their duplicates', async () => {
    const project = new ProjectInFiles();
    const disk = ProjectInFiles.disk();
    const log = holdLogWrites(disk);
    await project.create(disk);
    const inner = await project.open(disk);
    const store = await openDefinedStore(inner, project.clock);
    open.push(store);
    await commitOne(store, put('a', '{"email":"same"}'));
    log.isHeld = true;
    const early = store.commit([put('b', '{"email":"same"}')]);
    await expect.poll(() => log.waiting).toBe(1);
    const spec = { name: 'email', fields: ['email'], unique: true };
    inner.indexes.define('notes', [spec], { rev: '1', wasDefined: false });
    for (let turn = 0; turn < 50; turn++) await setImmediate();
    expect(inner.indexes.status('notes')).toMatchObject([{ state: 'building' }]);
    log.isHeld = false;
    log.releaseOne();
    await early;
    await inner.indexes.built();
    expect(inner.indexes.status('notes')).toMatchObject([{ state: 'duplicates', duplicates: 1 }]);
  });
});

describe('the stored indexes', () => {
  const define = (store: DefinedStore) =>
    store.define(
      'notes',
      {
        indexes: [
          { fields: ['email'], unique: true },
          { fields: ['g'], unique: false },
        ],
      },
      NONE,
    );
  const fill = async (store: DefinedStore) => {
    for (let n = 0; n < 50; n++)
      await commitOne(store, put(`planted-${n}`, `{"email":"needle-${n}","g":"g${n % 5}"}`));
  };
  const file = (disk: SimulatedDisk) => disk.files().get('/p/indexes');

  it('are sealed, and save the next opening the reads of unchanged documents', async () => {
    const { store, reopen, disk } = await start();
    await define(store);
    await fill(store);
    await store.indexes?.built();
    await store.checkpoint();
    // Each word is so long that ciphertext does not contain it by chance.
    expect(file(disk)?.toString('latin1')).not.toMatch(/planted|needle|email|notes/);
    await commitOne(store, put('planted-1', '{"email":"moved","g":"g9"}'));
    await commitOne(store, remove('planted-2'));
    const second = disk.powerCut('synced only');
    const read = vi.spyOn(second, 'read');
    const next = await reopen(second);
    await next.indexes?.built();
    expect(next.indexes?.status('notes').map(({ state }) => state)).toEqual(['ready', 'ready']);
    expect(read.mock.calls.filter(([path]) => path.startsWith('/p/docs')).length).toBeLessThan(5);
    expect(await idsAt(next, 'email', 'moved')).toEqual(['planted-1']);
    expect(await idsAt(next, 'email', 'needle-1')).toEqual([]);
    expect(await idsAt(next, 'email', 'needle-2')).toEqual([]);
    expect(await idsAt(next, 'g', 'g1')).toHaveLength(9);
    await expect(commitOne(next, put('x', '{"email":"needle-7"}'))).rejects.toMatchObject(violation);
  });

  it('are rebuilt when they are missing, changed, truncated or under another key', async () => {
    for (const harm of ['missing', 'changed', 'cut', 'another project'] as const) {
      const { store, reopen, disk } = await start();
      await define(store);
      await fill(store);
      await store.indexes?.built();
      await store.checkpoint();
      await store[Symbol.asyncDispose]();
      open.pop();
      const bytes = Buffer.from(file(disk) as Buffer);
      await disk.remove('/p/indexes');
      if (harm === 'changed') bytes[bytes.length - 20] = (bytes[bytes.length - 20] as number) ^ 1;
      if (harm === 'another project') bytes.fill(7, 30, 60);
      if (harm !== 'missing')
        await disk.createFile('/p/indexes', harm === 'cut' ? bytes.subarray(0, -9) : bytes);
      const next = await reopen(disk);
      await next.indexes?.built();
      expect(await idsAt(next, 'g', 'g1')).toHaveLength(10);
      await expect(commitOne(next, put('x', '{"email":"needle-7"}'))).rejects.toMatchObject(violation);
    }
  });

  it('disappear with the last index', async () => {
    const { store, disk } = await start();
    await define(store);
    await fill(store);
    await store.indexes?.built();
    await store.checkpoint();
    expect(file(disk)).toBeDefined();
    await store.define('notes', undefined, NONE);
    await store.checkpoint();
    expect(file(disk)).toBeUndefined();
  });
});

describe('the keys of a long commit', () => {
  const indexOn = (...fields: string[]) => ({
    indexes: fields.map((field) => ({ fields: [field], unique: field === 'email' })),
  });
  const pad = 'x'.repeat(100_000);
  const long = (id: string, email: string) =>
    put(id, `{"email":"${email}","g":["${email}","h"],"pad":"${pad}"}`);

  it('are computed before it is put in order, and yield to others even for a large document', async () => {
    const { store } = await start();
    await store.define('notes', indexOn('email', 'g'), NONE);
    await using scheduler = new Scheduler();
    using work = scheduler.work({ subject: 's', project: 'p' }, 'batch');
    await store.commit([long('a', 'one'), long('b', 'two')], { work });
    expect(scheduler.usedS('batch')).toBeGreaterThan(0);
    expect(await idsAt(store, 'email', 'two')).toEqual(['b']);
    expect(await idsAt(store, 'g', 'one')).toEqual(['a']);
    expect(await idsAt(store, 'g', 'h')).toEqual(['a', 'b']);
    await expect(store.commit([long('c', 'three'), long('d', 'one')], { work })).rejects.toMatchObject(
      violation,
    );
    await store.commit([long('a', 'three'), remove('b'), put('c', '{"email":"two"}')], { work });
    const found = ['one', 'two', 'three'].map((email) => idsAt(store, 'email', email));
    expect(await Promise.all(found)).toEqual([[], ['c'], ['a']]);
  });

  it('belong to the indexes that exist when it is put in order', async () => {
    const { store } = await start();
    await store.define('notes', indexOn('g'), NONE);
    const steps = new SlowSteps();
    await using _scheduler = steps.scheduler;
    using work = steps.work('batch');
    const committing = store.commit([long('a', 'one'), long('b', 'two')], { work });
    await store.define('notes', indexOn('email'), NONE);
    await committing;
    await store.indexes?.built();
    expect(await idsAt(store, 'email', 'two')).toEqual(['b']);
    expect(await idsAt(store, 'g', 'h')).toBeUndefined();
    await expect(commitOne(store, put('c', '{"email":"one"}'))).rejects.toMatchObject(violation);
  });
});
