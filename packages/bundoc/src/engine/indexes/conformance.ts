import { afterEach, describe, expect, it } from 'vitest';
import type { DefinedStore } from '../../collections/defined-store.ts';
import { SCAN_LIMITS } from '../../queries/scan-budget.ts';
import { whereSchema } from '../../queries/where.ts';
import { Queries } from '../../service/queries.ts';
import { commitOne, put, remove } from '../../testing/writes.ts';
import { readValue } from '../../values/value.ts';
import { ownWork } from '../../work/scheduler.ts';

export interface IndexedProject {
  /** The store of a new, empty project. */
  readonly store: DefinedStore;
  /** Opens the project as another process would after this one was killed. */
  readonly reopen: () => Promise<DefinedStore>;
}

const NONE = { kind: 'none' } as const;
const UNIQUE = { indexes: [{ fields: ['email'], unique: true }] };
const violation = { code: 'unique_violation', detail: expect.stringContaining('"email"') };

/** The tests of equality and unique indexes that every engine must pass. */
export function describeIndexes(name: string, make: () => Promise<IndexedProject>): void {
  const open: DefinedStore[] = [];
  afterEach(async () => {
    for (const store of open.splice(0)) await store[Symbol.asyncDispose]();
  });
  const start = async () => {
    const { store, reopen } = await make();
    open.push(store);
    return {
      store,
      reopen: async () => {
        const next = await reopen();
        open.push(next);
        return next;
      },
    };
  };
  describe(`a unique index of ${name}`, () => {
    it('allows no second document with a value, and frees it with the document that had it', async () => {
      const { store } = await start();
      await store.define('notes', UNIQUE, NONE);
      await commitOne(store, put('a', '{"email":"x"}'));
      await store.indexes?.built();
      await expect(commitOne(store, put('b', '{"email":"x"}'))).rejects.toMatchObject(violation);
      expect(await store.get({ collection: 'notes', id: 'b' })).toBeUndefined();
      await commitOne(store, put('a', '{"email":"x","again":true}'));
      await commitOne(store, put('a', '{"email":"y"}'));
      await commitOne(store, put('b', '{"email":"x"}'));
      await commitOne(store, remove('b'));
      await commitOne(store, put('c', '{"email":"x"}'));
      expect(await idsAt(store, '{"email":"x"}')).toEqual(['c']);
    });

    it('lets exactly one of many concurrent writers win', async () => {
      const { store } = await start();
      await store.define('notes', UNIQUE, NONE);
      const outcomes = await Promise.allSettled(
        Array.from({ length: 20 }, (_, n) => commitOne(store, put(`d${n}`, '{"email":"x"}'))),
      );
      expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
      await store.indexes?.built();
      expect(await idsAt(store, '{"email":"x"}')).toHaveLength(1);
    });

    it('checks each commit as a whole against all before it, also in the same frame', async () => {
      const { store } = await start();
      await store.define('notes', UNIQUE, NONE);
      await commitOne(store, put('a', '{"email":"x"}'));
      const outcomes = await Promise.allSettled([
        // Swaps values in one commit.
        store.commit([put('a', '{"email":"y"}'), put('b', '{"email":"x"}')]),
        // Refused as a whole, so its values stay free.
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
      await store.indexes?.built();
      const ids = ['w', 'x', 'y', 'z'].map((value) => idsAt(store, `{"email":"${value}"}`));
      expect(await Promise.all(ids)).toEqual([[], ['f'], ['a'], ['e']]);
    });

    it('allows the documents of one commit to exchange values, and to hand them over, in any order', async () => {
      const { store } = await start();
      await store.define('notes', UNIQUE, NONE);
      await store.commit(['a', 'b', 'c'].map((id) => put(id, `{"email":"${id}"}`)));
      await Promise.all([
        store.commit([put('a', '{"email":"b"}'), put('b', '{"email":"a"}')]),
        // In the same frame: c takes what a has got, and a goes.
        store.commit([put('c', '{"email":"b"}'), remove('a')]),
      ]);
      await store.commit([put('b', '{"email":["b","c"]}'), put('c', '{"email":"a"}')]);
      await expect(
        store.commit([put('b', '{"email":"a"}'), put('c', '{"email":["c","a"]}')]),
      ).rejects.toMatchObject(violation);
      await store.indexes?.built();
      const ids = ['a', 'b', 'c'].map((value) => idsAt(store, `{"email":"${value}"}`));
      expect(await Promise.all(ids)).toEqual([['c'], ['b'], ['b']]);
      await expect(commitOne(store, put('d', '{"email":"c"}'))).rejects.toMatchObject(violation);
      await commitOne(store, put('d', '{"email":"d"}'));
    });

    it('enforces complete values, each element of an array separately, and exact numbers', async () => {
      const { store } = await start();
      await store.define(
        'notes',
        { indexes: [{ name: 'email', fields: ['email', 'n'], unique: true }] },
        NONE,
      );
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

    it('reports duplicates found by its build, refuses nothing then, and is ready when rebuilt without them', async () => {
      const { store } = await start();
      for (const id of ['a', 'b', 'c']) await commitOne(store, put(id, '{"email":"x"}'));
      await store.define('notes', UNIQUE, NONE);
      await store.indexes?.built();
      expect(store.indexes?.status('notes')).toMatchObject([{ state: 'duplicates', duplicates: 2 }]);
      expect(await idsAt(store, '{"email":"x"}')).toEqual(['a', 'b', 'c']);
      await commitOne(store, put('d', '{"email":"x"}'));
      for (const id of ['b', 'c', 'd']) await commitOne(store, remove(id));
      await store.define('notes', UNIQUE, NONE);
      await store.indexes?.built();
      expect(store.indexes?.status('notes')).toMatchObject([{ state: 'ready' }]);
      await expect(commitOne(store, put('b', '{"email":"x"}'))).rejects.toMatchObject(violation);
    });

    it('enforces from the first moment after it is reopened', async () => {
      const { store, reopen } = await start();
      await store.define('notes', UNIQUE, NONE);
      await commitOne(store, put('a', '{"email":"x"}'));
      const next = await reopen();
      await expect(commitOne(next, put('b', '{"email":"x"}'))).rejects.toMatchObject({
        code: expect.stringMatching(/^(unique_violation|overloaded)$/),
      });
      await next.indexes?.built();
      await expect(commitOne(next, put('b', '{"email":"x"}'))).rejects.toMatchObject(violation);
      await commitOne(next, put('b', '{"email":"y"}'));
    });
  });

  describe(`an index of ${name}`, () => {
    it("is built while documents change, and has each document's latest state", async () => {
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
      expect(await idsAt(store, '{"g":"new"}')).toHaveLength(101);
      expect(await idsAt(store, '{"g":"old"}')).toHaveLength(300);
    });

    it('stays unchanged when a definition keeps it, and disappears with its definition', async () => {
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
      expect(store.indexes?.usable('notes')).toEqual([]);
      expect(store.indexes?.status('notes')).toEqual([]);
    });

    it('makes a document with too many values a candidate of every search', async () => {
      const { store } = await start();
      await store.define('notes', { indexes: [{ fields: ['g'], unique: false }] }, NONE);
      await store.indexes?.built();
      const many = JSON.stringify({ g: Array.from({ length: 1_001 }, (_, n) => n) });
      await commitOne(store, put('many', many));
      await commitOne(store, put('one', '{"g":1}'));
      expect(await find(store, '{"g":1}')).toMatchObject({ ids: ['many', 'one'], scanned: 2 });
      expect(await find(store, '{"g":"x"}')).toMatchObject({ ids: [], scanned: 1 });
      await commitOne(store, put('many', '{"g":1}'));
      expect(await find(store, '{"g":"x"}')).toMatchObject({ ids: [], scanned: 0 });
    });

    it('finds equal values by the rules of queries, each document once, and visits nothing else', async () => {
      const { store } = await start();
      const indexes = [
        { fields: ['g'], unique: false },
        { fields: ['a.b', 'h'], unique: false },
      ];
      await store.define('notes', { indexes }, NONE);
      await store.indexes?.built();
      const texts = {
        one: '{"g":1}',
        oneToo: '{"g":10e-1}',
        text: '{"g":"1"}',
        big: '{"g":12345678901234567890}',
        bigger: '{"g":12345678901234567891}',
        list: '{"g":[1,"x",[1]]}',
        none: '{"g":null}',
        object: '{"g":{"b":1,"a":2}}',
        pair: '{"a":[{"b":1},{"b":2}],"h":true}',
        half: '{"a":{"b":1}}',
      };
      for (const [id, text] of Object.entries(texts)) await commitOne(store, put(id, text));
      for (const [where, ids] of [
        ['{"g":1.0}', ['one', 'oneToo', 'list']],
        ['{"g":"1"}', ['text']],
        ['{"g":1234567890123456789e1}', ['big']],
        ['{"g":{"$in":["x",1,[1]]}}', ['one', 'oneToo', 'list']],
        ['{"g":[1,"x",[1]]}', ['list']],
        ['{"g":null}', ['none']],
        ['{"$or":[{"g":"1"},{"g":{"$in":["x",null]},"a":{"$exists":false}}]}', ['text', 'list', 'none']],
        ['{"g":{"$eq":{"a":2,"b":1}}}', ['object']],
        ['{"a.b":2,"h":true}', ['pair']],
        ['{"$and":[{"a.b":{"$in":[2,1]}},{"h":{"$in":[true,false]}}]}', ['pair']],
        ['{"h":false,"a.b":1}', []],
      ] as const) {
        const found = await find(store, where);
        expect([where, found.ids, found.scanned]).toEqual([where, ids, ids.length]);
        expect(found.index).toBe(where.includes('"h"') ? 'a.b+h' : 'g');
      }
    });

    it('omits no document from a query during which another index takes its name', async () => {
      const { store } = await start();
      await commitOne(store, put('a', '{"g":1,"h":2}'));
      const define = async (field: string) => {
        const index = { name: 'one', fields: [field], unique: false };
        await store.define('notes', { indexes: [index] }, NONE);
        await store.indexes?.built();
      };
      await define('g');
      const query = find(store, '{"g":1}', () => define('h'));
      // It ends, or begins again.
      const outcome = await query.then(
        ({ ids }) => ids,
        (error) => error.code,
      );
      expect([['a'], 'overloaded']).toContainEqual(outcome);
      expect(await find(store, '{"h":2}')).toMatchObject({ index: 'one', ids: ['a'] });
    });

    it('is completed by the next process that opens the project after a kill', async () => {
      const { store, reopen } = await start();
      for (let n = 0; n < 450; n++) await commitOne(store, put(`d${n}`, `{"g":${n % 3}}`));
      await store.define('notes', { indexes: [{ fields: ['g'], unique: false }] }, NONE);
      const next = await reopen();
      await commitOne(next, put('d0', '{"g":1}'));
      await commitOne(next, remove('d1'));
      // As the service does about once a second.
      await expect
        .poll(
          async () => {
            await next.load();
            return next.indexes?.status('notes').map(({ state }) => state);
          },
          { timeout: 30_000 },
        )
        .toEqual(['ready']);
      expect(await find(next, '{"g":1}')).toMatchObject({ index: 'g', scanned: 150 });
    });
  });
}

/** Ids that match a condition, in creation order; an index must have found them. */
async function idsAt(store: DefinedStore, where: string): Promise<readonly string[]> {
  const { ids, index } = await find(store, where);
  expect(index).not.toBeNull();
  return ids;
}

/**
 * Documents that match a condition, and how they were found.
 *
 * @param meanwhile runs once the query has chosen its index.
 */
export async function find(store: DefinedStore, where: string, meanwhile?: () => Promise<void>) {
  const cursors = { seal: () => Promise.reject(new Error('everything is on one page')) };
  let acquired = 0;
  const acquire = async () => {
    if (++acquired === 2) await meanwhile?.();
    return { store, cursors, isUsable: () => false, [Symbol.dispose]: () => undefined };
  };
  const { documents, explanation } = await new Queries({ acquire: acquire as never }, SCAN_LIMITS).query({
    project: 'p',
    collection: 'notes',
    where: whereSchema.parse(readValue(where)),
    whereText: where,
    work: ownWork('p')('query'),
    orderBy: [],
    limit: 1_000,
    bytesMax: 100_000_000,
    cursor: undefined,
    fields: undefined,
  });
  return {
    ids: documents.map(({ metadata }) => metadata._id),
    index: explanation.index,
    scanned: explanation.documents_scanned,
  };
}
