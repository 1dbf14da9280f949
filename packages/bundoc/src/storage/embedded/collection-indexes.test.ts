import { afterEach, describe, expect, it, vi } from 'vitest';
import { encodeKeyPart } from '../../query/key.ts';
import { EmbeddedProject } from '../../testing/embedded-project.ts';
import type { SimulatedDisk } from '../../testing/simulated-disk.ts';
import { type DefinedStore, openDefinedStore } from '../collections/defined-store.ts';
import { commitOne, put, remove } from '../conformance.ts';

const open: DefinedStore[] = [];
afterEach(async () => {
  for (const store of open.splice(0)) await store[Symbol.asyncDispose]();
});

async function start() {
  const project = new EmbeddedProject();
  const disk = EmbeddedProject.disk();
  await project.create(disk);
  const reopen = async (on: SimulatedDisk = disk) => {
    const store = await openDefinedStore(await project.open(on), project.clock);
    open.push(store);
    return store;
  };
  return { project, disk, reopen, store: await reopen() };
}

const NONE = { kind: 'none' } as const;
const UNIQUE = { indexes: [{ fields: ['email'], unique: true }] };
const violation = { code: 'unique_violation', detail: expect.stringContaining('"email"') };

/** Ids under a value of an index, in its order. */
function idsAt(store: DefinedStore, index: string, value: string): readonly string[] | undefined {
  const low = encodeKeyPart(value);
  return store.indexes
    ?.search('notes', index, { low, high: `${low}\u0100` }, false, 1_000)
    ?.map(({ id }) => id);
}

describe('a unique index', () => {
  it('lets no second document have a value, and lets it go with the document that had it', async () => {
    const { store } = await start();
    await store.define('notes', UNIQUE, NONE);
    await commitOne(store, put('a', '{"email":"x"}'));
    await expect(commitOne(store, put('b', '{"email":"x"}'))).rejects.toMatchObject(violation);
    expect(await store.get({ collection: 'notes', id: 'b' })).toBeUndefined();
    await commitOne(store, put('a', '{"email":"x","again":true}'));
    await commitOne(store, put('a', '{"email":"y"}'));
    await commitOne(store, put('b', '{"email":"x"}'));
    await commitOne(store, remove('b'));
    await commitOne(store, put('c', '{"email":"x"}'));
    expect(idsAt(store, 'email', 'x')).toEqual(['c']);
  });

  it('lets exactly one of many that come together win', async () => {
    const { store } = await start();
    await store.define('notes', UNIQUE, NONE);
    const outcomes = await Promise.allSettled(
      Array.from({ length: 20 }, (_, n) => commitOne(store, put(`d${n}`, '{"email":"x"}'))),
    );
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    await store.indexes?.built();
    expect(idsAt(store, 'email', 'x')).toHaveLength(1);
  });

  it('judges each commit by all before it, as a whole, also of the same frame', async () => {
    const { store } = await start();
    await store.define('notes', UNIQUE, NONE);
    await commitOne(store, put('a', '{"email":"x"}'));
    const outcomes = await Promise.allSettled([
      // Swaps hands in one commit.
      store.commit([put('a', '{"email":"y"}'), put('b', '{"email":"x"}')]),
      // Refused as a whole: what it would have taken stays free.
      store.commit([put('c', '{"email":"z"}'), put('d', '{"email":"x"}')]),
      store.commit([put('e', '{"email":"z"}')]),
      store.commit([remove('b'), put('f', '{"email":"x"}')]),
      store.commit([put('g', '{"email":"w"}'), put('h', '{"email":"w"}')]),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual([
      'fulfilled',
      'rejected',
      'fulfilled',
      'fulfilled',
      'rejected',
    ]);
    expect(['w', 'x', 'y', 'z'].map((value) => idsAt(store, 'email', value))).toEqual([
      [],
      ['f'],
      ['a'],
      ['e'],
    ]);
  });

  it('keeps apart what has all its fields, each element of an array for itself, and exact numbers', async () => {
    const { store } = await start();
    await store.define('notes', { indexes: [{ name: 'email', fields: ['email', 'n'], unique: true }] }, NONE);
    for (const [id, text] of [
      ['a', '{"email":"x"}'],
      ['b', '{"email":"x"}'],
      ['c', '{"email":"x","n":12345678901234567890}'],
      ['d', '{"email":"x","n":12345678901234567891}'],
      ['e', '{"email":["u","v"],"n":null}'],
    ] as const)
      await commitOne(store, put(id, text));
    await expect(
      commitOne(store, put('f', '{"email":"x","n":1234567890123456789.0e1}')),
    ).rejects.toMatchObject(violation);
    await expect(commitOne(store, put('f', '{"email":"v","n":null}'))).rejects.toMatchObject(violation);
  });

  it('that finds duplicates when it is made says so, refuses nothing, and is whole once it is made anew without them', async () => {
    const { store } = await start();
    for (const id of ['a', 'b', 'c']) await commitOne(store, put(id, '{"email":"x"}'));
    await store.define('notes', UNIQUE, NONE);
    await store.indexes?.built();
    expect(store.indexes?.status('notes')).toMatchObject([{ state: 'duplicates', duplicates: 2 }]);
    expect(idsAt(store, 'email', 'x')).toEqual(['a', 'b', 'c']);
    await commitOne(store, put('d', '{"email":"x"}'));
    for (const id of ['b', 'c', 'd']) await commitOne(store, remove(id));
    await store.define('notes', UNIQUE, NONE);
    await store.indexes?.built();
    expect(store.indexes?.status('notes')).toMatchObject([{ state: 'ready' }]);
    await expect(commitOne(store, put('b', '{"email":"x"}'))).rejects.toMatchObject(violation);
  });

  it('keeps apart from the first moment after it was opened again', async () => {
    const { store, reopen, disk } = await start();
    await store.define('notes', UNIQUE, NONE);
    await commitOne(store, put('a', '{"email":"x"}'));
    const next = await reopen(disk.powerCut('synced only'));
    await expect(commitOne(next, put('b', '{"email":"x"}'))).rejects.toMatchObject({
      code: expect.stringMatching(/^(unique_violation|overloaded)$/),
    });
    await next.indexes?.built();
    await expect(commitOne(next, put('b', '{"email":"x"}'))).rejects.toMatchObject(violation);
    await commitOne(next, put('b', '{"email":"y"}'));
  });
});

describe('what is kept of indexes', () => {
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

  it('is sealed, and spares the next opening the documents that have not changed', async () => {
    const { store, reopen, disk } = await start();
    await define(store);
    await fill(store);
    await store.indexes?.built();
    await store.checkpoint();
    // Each word so long that ciphertext does not hold it by chance.
    expect(file(disk)?.toString('latin1')).not.toMatch(/planted|needle|email|notes/);
    await commitOne(store, put('planted-1', '{"email":"moved","g":"g9"}'));
    await commitOne(store, remove('planted-2'));
    const second = disk.powerCut('synced only');
    const read = vi.spyOn(second, 'read');
    const next = await reopen(second);
    await next.indexes?.built();
    expect(next.indexes?.status('notes').map(({ state }) => state)).toEqual(['ready', 'ready']);
    expect(read.mock.calls.filter(([path]) => path.startsWith('/p/docs')).length).toBeLessThan(5);
    expect(idsAt(next, 'email', 'moved')).toEqual(['planted-1']);
    expect(idsAt(next, 'email', 'needle-1')).toEqual([]);
    expect(idsAt(next, 'email', 'needle-2')).toEqual([]);
    expect(idsAt(next, 'g', 'g1')).toHaveLength(9);
    await expect(commitOne(next, put('x', '{"email":"needle-7"}'))).rejects.toMatchObject(violation);
  });

  it('is worth nothing but time: missing, changed, cut or of another key, it is made anew', async () => {
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
      expect(idsAt(next, 'g', 'g1')).toHaveLength(10);
      await expect(commitOne(next, put('x', '{"email":"needle-7"}'))).rejects.toMatchObject(violation);
    }
  });

  it('goes with the last index', async () => {
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

describe('an index', () => {
  it('is built while documents change, and has each as it then is', async () => {
    const { store } = await start();
    for (let n = 0; n < 500; n++) await commitOne(store, put(`d${n}`, `{"g":"old","n":${n}}`));
    await store.define('notes', { indexes: [{ fields: ['g'], unique: false }] }, NONE);
    expect(store.indexes?.status('notes')).toMatchObject([{ state: 'building', indexed: 0, total: 500 }]);
    expect(store.indexes?.usable('notes')).toEqual([]);
    const changes = [];
    for (let n = 0; n < 500; n += 5) changes.push(store.commit([put(`d${n}`, '{"g":"new"}')]));
    for (let n = 1; n < 500; n += 5) changes.push(store.commit([remove(`d${n}`)]));
    changes.push(store.commit([put('late', '{"g":"new"}')]));
    await Promise.all(changes);
    await store.indexes?.built();
    expect(store.indexes?.status('notes')).toMatchObject([{ state: 'ready' }]);
    expect(idsAt(store, 'g', 'new')).toHaveLength(101);
    const low = encodeKeyPart('old');
    expect(store.indexes?.search('notes', 'g', { low, high: `${low}\u0100` }, false, 1_000)).toHaveLength(
      300,
    );
  });

  it('stays as it is when a definition keeps it, and goes with its definition', async () => {
    const { store } = await start();
    await commitOne(store, put('a', '{"g":"x"}'));
    const kept = { fields: ['g'], unique: false };
    await store.define('notes', { indexes: [kept] }, NONE);
    await store.indexes?.built();
    await store.define('notes', { indexes: [kept, { fields: ['h'], unique: false }] }, NONE);
    expect(store.indexes?.usable('notes').map(({ name }) => name)).toEqual(['g']);
    await store.indexes?.built();
    expect(store.indexes?.usable('notes').map(({ name }) => name)).toEqual(['g', 'h']);
    await store.define('notes', undefined, NONE);
    expect(idsAt(store, 'g', 'x')).toBeUndefined();
  });

  it('gives a document with more values than it holds to every search', async () => {
    const { store } = await start();
    await store.define('notes', { indexes: [{ fields: ['g'], unique: false }] }, NONE);
    await commitOne(store, put('many', JSON.stringify({ g: Array.from({ length: 1_001 }, (_, n) => n) })));
    await commitOne(store, put('one', '{"g":1}'));
    expect(store.indexes?.always('notes', 'g')?.map(({ id }) => id)).toEqual(['many']);
    expect(store.indexes?.usable('notes')).toMatchObject([{ isMultiple: true }]);
    await commitOne(store, put('many', '{"g":1}'));
    expect(store.indexes?.always('notes', 'g')).toEqual([]);
    expect(store.indexes?.usable('notes')).toMatchObject([{ isMultiple: false }]);
  });
});
