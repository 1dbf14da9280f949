import type { OrderBy } from '@bundoc/shared/contract/query';
import { afterEach, describe, expect, it } from 'vitest';
import type { DefinedStore } from '../../collections/defined-store.ts';
import type { Cursors } from '../../crypto/sealed-cursor.ts';
import { SCAN_LIMITS } from '../../queries/scan-budget.ts';
import { whereSchema } from '../../queries/where.ts';
import { Queries } from '../../service/queries.ts';
import { commitOne, put, remove } from '../../testing/writes.ts';
import { KEY_PART_MAX } from '../../values/key.ts';
import { readValue } from '../../values/value.ts';
import { ownWork } from '../../work/scheduler.ts';
import { ENTRIES_OF_DOCUMENT_MAX } from '../indexes/index-keys.ts';

export interface OrderedProject {
  /** The store of a new, empty project. */
  readonly store: DefinedStore;
  /** Opens the project as another process would after this one was killed. */
  readonly reopen: () => Promise<DefinedStore>;
  readonly cursors: Cursors;
}

const NONE = { kind: 'none' } as const;
const UP: OrderBy = [{ field: 'n', direction: 'asc' }];
const DOWN: OrderBy = [{ field: 'n', direction: 'desc' }];
/** Reads of these queries must stay far below a scan of the collection. */
const LIMITS = { ...SCAN_LIMITS, documentsMax: 100 };

/** Queries of one store. */
class Asked {
  readonly store: DefinedStore;
  readonly #queries: Queries;

  constructor(store: DefinedStore, cursors: Cursors) {
    this.store = store;
    const lease = { store, cursors, isUsable: () => true, [Symbol.dispose]: () => undefined };
    this.#queries = new Queries({ acquire: async () => lease }, LIMITS);
  }

  /** Defines an index for each list of fields. */
  async define(...indexes: readonly string[][]): Promise<void> {
    const specs = indexes.map((fields) => ({ fields, unique: false }));
    await this.store.define('notes', { indexes: specs }, NONE);
    await this.store.indexes?.built();
  }

  /** Documents `d0`, `d1`, … with these texts, in the order of creation. */
  async create(texts: readonly string[]): Promise<void> {
    for (let at = 0; at < texts.length; at += 100)
      await this.store.commit(texts.slice(at, at + 100).map((text, of) => put(`d${at + of}`, text)));
  }

  async page(where: string, orderBy: OrderBy = [], limit = 1_000, cursor?: string) {
    const { documents, next, explanation, asOf } = await this.#queries.query({
      ...this.#selection(where),
      orderBy,
      limit,
      bytesMax: 100_000_000,
      cursor,
      fields: undefined,
    });
    return { ids: documents.map(({ metadata }) => metadata._id), next, explanation, asOf };
  }

  /** All pages of a query. @param between runs after each page but the last, with the ids so far. */
  async pages(
    where: string,
    orderBy: OrderBy,
    limit: number,
    between?: (ids: readonly string[]) => Promise<void>,
  ) {
    const ids: string[] = [];
    const scanned: number[] = [];
    for (let cursor: string | undefined; ; ) {
      const page = await this.page(where, orderBy, limit, cursor);
      expect(page.explanation).toMatchObject({ index: expect.any(String), order: 'index' });
      ids.push(...page.ids);
      scanned.push(page.explanation.documents_scanned);
      cursor = page.next;
      if (cursor === undefined) return { ids, scanned };
      await between?.(ids);
    }
  }

  async count(where: string, asOf?: number) {
    const { count, explanation } = await this.#queries.count({ ...this.#selection(where), asOf });
    return [count, explanation.index, explanation.documents_scanned];
  }

  #selection(where: string) {
    return {
      project: 'p',
      collection: 'notes',
      where: whereSchema.parse(readValue(where)),
      whereText: where,
      work: ownWork('p')('query'),
    };
  }
}

/** The tests of ordered indexes that every engine must pass. */
export function describeOrder(name: string, make: () => Promise<OrderedProject>): void {
  const open: DefinedStore[] = [];
  afterEach(async () => {
    for (const store of open.splice(0)) await store[Symbol.asyncDispose]();
  });
  const start = async () => {
    const { store, reopen, cursors } = await make();
    open.push(store);
    const again = async () => {
      const next = await reopen();
      open.push(next);
      await next.indexes?.built();
      return new Asked(next, cursors);
    };
    return { asked: new Asked(store, cursors), again };
  };
  describe(`an ordered index of ${name}`, () => {
    describeFinding(start);
    describePages(start);
    describeSeveral(start);
    describeCounts(start);
  });
}

type Start = () => Promise<{ readonly asked: Asked; readonly again: () => Promise<Asked> }>;

function describeFinding(start: Start): void {
  it('finds ranges, prefixes, lists and absence, and reads only the documents in them', async () => {
    const { asked, again } = await start();
    await asked.define(['v']);
    const values = [
      '1',
      '2',
      '10',
      '"ab"',
      '"abc"',
      '"b"',
      'null',
      'true',
      '{"a":1}',
      '12345678901234567890',
    ];
    await asked.create([...values.map((value) => `{"v":${value}}`), '{}']);
    const cases = [
      ['{"v":2.0}', ['d1']],
      ['{"v":{"$gt":1}}', ['d1', 'd2', 'd9']],
      ['{"v":{"$gte":2,"$lt":10}}', ['d1']],
      ['{"v":{"$lte":1}}', ['d0']],
      ['{"v":{"$gt":12345678901234567889}}', ['d9']],
      ['{"v":{"$gt":12345678901234567890}}', []],
      ['{"v":{"$beginsWith":"ab"}}', ['d3', 'd4']],
      ['{"v":{"$gte":"abc"}}', ['d4', 'd5']],
      ['{"v":{"$in":["b",10,null,7]}}', ['d2', 'd5', 'd6']],
      ['{"v":{"$lt":true}}', []],
      ['{"v":{"$exists":false}}', ['d10']],
      ['{"$or":[{"v":{"$gt":9}},{"v":{"$beginsWith":"b"}}]}', ['d2', 'd5', 'd9']],
    ] as const;
    for (const one of [asked, await again()])
      for (const [where, ids] of cases) {
        const { ids: found, explanation } = await one.page(where);
        expect([where, found, explanation.index]).toEqual([where, ids, 'v']);
        expect([where, explanation.documents_scanned]).toEqual([where, ids.length]);
      }
    expect((await asked.page('{"v":{"$exists":true}}')).ids).toHaveLength(values.length);
  });

  it('does not help $contains, $endsWith, $mod and conditions that ignore case', async () => {
    const { asked } = await start();
    await asked.define(['v']);
    await asked.create(['"Abc"', '"xabc"', '"ABC"', '12'].map((value) => `{"v":${value}}`));
    const cases = [
      ['{"v":{"$contains":"b"}}', ['d0', 'd1']],
      ['{"v":{"$endsWith":"c"}}', ['d0', 'd1']],
      ['{"v":{"$beginsWith":"ab","$options":"i"}}', ['d0', 'd2']],
      ['{"v":{"$mod":[5,2]}}', ['d3']],
    ] as const;
    for (const [where, ids] of cases) {
      const { ids: found, explanation } = await asked.page(where);
      expect([where, found, explanation.index]).toEqual([where, ids, null]);
    }
    // The other condition of the field does.
    const both = await asked.page('{"v":{"$gte":"x","$contains":"B","$options":"i"}}');
    expect([both.ids, both.explanation.index]).toEqual([['d1'], 'v']);
  });

  it('finds by several fields, and prefers the index with most of them', async () => {
    const { asked } = await start();
    await asked.define(['g'], ['g', 'n'], ['n']);
    await asked.create(Array.from({ length: 60 }, (_, n) => `{"g":${n % 3},"n":${n}}`));
    for (const [where, index, ids] of [
      ['{"g":1,"n":{"$gte":50}}', 'g+n', ['d52', 'd55', 'd58']],
      ['{"g":{"$in":[0,2]},"n":{"$lt":4}}', 'g+n', ['d0', 'd2', 'd3']],
      ['{"g":1,"n":{"$exists":false}}', 'g+n', []],
      ['{"n":{"$gt":57}}', 'n', ['d58', 'd59']],
      ['{"g":{"$exists":true},"n":{"$gt":57}}', 'n', ['d58', 'd59']],
    ] as const) {
      const { ids: found, explanation } = await asked.page(where);
      expect([where, explanation.index, found]).toEqual([where, index, ids]);
      expect([where, explanation.documents_scanned]).toEqual([where, ids.length]);
    }
  });

  it('finds and orders values that are longer than a key', async () => {
    const { asked } = await start();
    await asked.define(['n']);
    const long = 'x'.repeat(KEY_PART_MAX);
    const values = [`${long}b`, `${long}a`, 'x', `${long.slice(9)}y`, long];
    await asked.create(values.map((n) => JSON.stringify({ n })));
    for (const [at, value] of values.entries()) {
      const where = (op: string) => JSON.stringify({ n: { [op]: value } });
      expect((await asked.page(where('$eq'))).ids).toEqual([`d${at}`]);
      for (const [op, holds] of [
        ['$gt', (other: string) => other > value],
        ['$gte', (other: string) => other >= value],
        ['$lt', (other: string) => other < value],
        ['$lte', (other: string) => other <= value],
        ['$beginsWith', (other: string) => other.startsWith(value)],
      ] as const) {
        const { ids, explanation } = await asked.page(where(op));
        const matches = values.flatMap((other, of) => (holds(other) ? [`d${of}`] : []));
        expect([op, ids.toSorted(), explanation.index]).toEqual([op, matches, 'n']);
        expect((await asked.count(where(op))).slice(0, 2)).toEqual([matches.length, 'n']);
      }
    }
    const { ids } = await asked.pages('{"n":{"$exists":true}}', UP, 2);
    expect([ids[0], ids.length, ids.at(-1)]).toEqual(['d2', 5, 'd3']);
  });
}

function describePages(start: Start): void {
  it('orders both ways, page by page to the end, with equal values in the order of creation', async () => {
    const { asked } = await start();
    await asked.define(['n'], ['g', 'n']);
    const documents = Array.from({ length: 330 }, (_, at) => ({ at, n: (at * 7) % 50, g: at % 2 }));
    await asked.create(documents.map(({ n, g }) => JSON.stringify({ n, g })));
    const sorted = documents.toSorted((a, b) => a.n - b.n || a.at - b.at);
    for (const [where, holds] of [
      ['{}', () => true],
      ['{"g":1}', ({ g }: { g: number }) => g === 1],
      ['{"n":{"$gte":10,"$lt":40}}', ({ n }: { n: number }) => n >= 10 && n < 40],
      ['{"g":0,"n":{"$lte":20}}', ({ n, g }: { n: number; g: number }) => g === 0 && n <= 20],
    ] as const) {
      const expected = sorted.filter(holds).map(({ at }) => `d${at}`);
      for (const limit of [7, 50]) {
        const up = await asked.pages(where, UP, limit);
        expect([where, up.ids]).toEqual([where, expected]);
        expect((await asked.pages(where, DOWN, limit)).ids).toEqual(expected.toReversed());
        // One document more shows that there are more.
        expect(Math.max(...up.scanned)).toBe(limit + 1);
      }
    }
  });

  it('shows in each page the documents of its own state, after the last one of the page before', async () => {
    for (const orderBy of [UP, DOWN]) {
      const { asked } = await start();
      await asked.define(['n']);
      const values = new Map(Array.from({ length: 60 }, (_, at) => [`d${at}`, (at * 11) % 60]));
      await asked.create([...values.values()].map((n) => `{"n":${n}}`));
      const isUp = orderBy === UP;
      const shown = new Map<string, number>();
      let round = 0;
      const { ids } = await asked.pages('{}', orderBy, 9, async (some) => {
        for (const id of some) if (!shown.has(id)) shown.set(id, values.get(id) as number);
        const last = shown.get(some.at(-1) as string) as number;
        const behind = [...values].filter(([, n]) => (isUp ? n > last : n < last)).map(([id]) => id);
        const [moved, removed] = [behind[round], behind[round + 1]];
        round++;
        if (moved === undefined || removed === undefined) return;
        // One moves before the cursor, one disappears, and one comes again with its value.
        const again = some[0] as string;
        await asked.store.commit([
          put(moved, `{"n":${isUp ? -round : 100 + round}}`),
          remove(removed),
          put(again, `{"n":${values.get(again)},"again":true}`),
        ]);
        values.delete(moved);
        values.delete(removed);
      });
      const expected = [...values].toSorted(([, a], [, b]) => (isUp ? a - b : b - a)).map(([id]) => id);
      expect(ids).toEqual(expected);
      expect(round).toBeGreaterThan(4);
    }
  });
}

function describeSeveral(start: Start): void {
  const several = ['{"n":[5,1]}', '{"n":3}', '{"n":[1,20]}', '{"n":[]}', '{"n":[{"a":1},4]}', '{}'];

  it('finds documents by each of several values, once, and leaves their order to sorting', async () => {
    const { asked } = await start();
    await asked.define(['n']);
    await asked.create(several);
    for (const [where, ids] of [
      ['{"n":1}', ['d0', 'd2']],
      ['{"n":{"$gt":0}}', ['d0', 'd1', 'd2', 'd4']],
      ['{"n":{"$gt":5,"$lt":10}}', ['d2']],
      ['{"n":{"$in":[1,5,20]}}', ['d0', 'd2']],
      ['{"n":[]}', ['d3']],
      ['{"n":{"$exists":false}}', ['d5']],
      ['{"n":{"$exists":true}}', ['d0', 'd1', 'd2', 'd3', 'd4']],
    ] as const) {
      const { ids: found, explanation } = await asked.page(where);
      expect([where, found.toSorted(), explanation.index]).toEqual([where, ids, 'n']);
      expect((await asked.count(where)).slice(0, 2)).toEqual([ids.length, 'n']);
    }
    const { ids, explanation } = await asked.page('{"n":{"$gt":0}}', UP);
    expect([ids, explanation.order]).toEqual([['d1', 'd2', 'd0', 'd4'], 'sorted']);
  });

  it('looks at documents with too many values in every search', async () => {
    const { asked, again } = await start();
    await asked.define(['n'], ['n', 'm']);
    await asked.create(['{"n":1,"m":1}', '{"n":7,"m":2}']);
    const numbers = Array.from({ length: ENTRIES_OF_DOCUMENT_MAX + 1 }, (_, n) => n + 5);
    await commitOne(asked.store, put('many', JSON.stringify({ n: numbers, m: 2 })));
    const check = async (one: Asked) => {
      for (const [where, ids] of [
        ['{"n":{"$lte":1}}', ['d0']],
        ['{"n":7}', ['d1', 'many']],
        ['{"n":{"$gt":900}}', ['many']],
        ['{"n":{"$in":[1,8]},"m":2}', ['many']],
        ['{"n":{"$exists":false}}', []],
      ] as const) {
        const { ids: found, explanation } = await one.page(where);
        expect([where, found.toSorted()]).toEqual([where, ids]);
        expect(explanation.index).not.toBeNull();
        expect((await one.count(where))[0]).toBe(ids.length);
      }
    };
    await check(asked);
    await check(await again());
    await commitOne(asked.store, put('many', '{"n":0,"m":2}'));
    expect((await asked.page('{"n":{"$lte":1}}')).ids.toSorted()).toEqual(['d0', 'many']);
    expect((await asked.page('{"n":{"$gt":900}}')).ids).toEqual([]);
  });

  it('continues a query to its end when documents get several values between two pages', async () => {
    const { asked } = await start();
    await asked.define(['n']);
    await asked.create(Array.from({ length: 40 }, (_, n) => `{"n":${n}}`));
    const first = await asked.page('{"n":{"$gte":0}}', UP, 10);
    expect(first.explanation.order).toBe('index');
    await commitOne(asked.store, put('d20', '{"n":[20,0]}'));
    const ids = [...first.ids];
    for (let cursor = first.next; cursor !== undefined; ) {
      const page = await asked.page('{"n":{"$gte":0}}', UP, 10, cursor);
      ids.push(...page.ids);
      cursor = page.next;
    }
    // An array is one value in an order, after all numbers.
    const expected = Array.from({ length: 40 }, (_, n) => `d${n}`).filter((id) => id !== 'd20');
    expect(ids).toEqual([...expected, 'd20']);
  });
}

function describeCounts(start: Start): void {
  const numbers = Array.from({ length: 300 }, (_, n) => `{"n":${n},"g":${n % 3}}`);

  it('counts without reading a document where it decides the condition, also after changes', async () => {
    const { asked, again } = await start();
    await asked.define(['g', 'n']);
    await asked.create(numbers);
    expect(await asked.count('{"g":1}')).toEqual([100, 'g+n', 0]);
    await asked.store.commit([remove('d1'), put('d4', '{"n":4,"g":2}'), put('new', '{"g":1}')]);
    const cases = [
      ['{"g":1}', 99],
      ['{"g":2,"n":{"$gt":2,"$lte":11}}', 4],
      ['{"g":2,"n":{"$gte":2,"$lt":11}}', 4],
      ['{"g":{"$in":[0,1]},"n":{"$lt":10}}', 5],
      ['{"g":1,"n":{"$exists":false}}', 1],
      ['{"g":1,"n":{"$exists":true}}', 98],
      ['{"g":{"$beginsWith":"x"}}', 0],
    ] as const;
    for (const one of [asked, await again()])
      for (const [where, count] of cases)
        expect([where, await one.count(where)]).toEqual([where, [count, 'g+n', 0]]);
  });

  it('counts by reading where the condition says more than its keys', async () => {
    const { asked } = await start();
    await asked.define(['n']);
    await asked.create(numbers);
    expect(await asked.count('{"n":{"$lt":30},"g":1}')).toEqual([10, 'n', 30]);
    expect(await asked.count('{"n":{"$lt":30,"$ne":7}}')).toEqual([29, 'n', 30]);
    await commitOne(asked.store, put('several', '{"n":[1,2]}'));
    expect(await asked.count('{"n":{"$lt":30}}')).toEqual([31, 'n', 31]);
  });

  it('counts an earlier state as it was, or not at all', async () => {
    const { asked } = await start();
    await asked.define(['n']);
    await asked.create(numbers.slice(0, 50));
    const { asOf, next } = await asked.page('{"n":{"$gte":0}}', UP, 10);
    expect(next).toBeDefined();
    await asked.store.commit([remove('d1'), put('d2', '{"n":-1}'), put('new', '{"n":5}')]);
    expect(await asked.count('{"n":{"$gte":0}}')).toEqual([49, 'n', 0]);
    const counted = await asked.count('{"n":{"$gte":0}}', asOf).catch((error: unknown) => error);
    if (counted instanceof Error) expect(counted).toMatchObject({ code: 'snapshot_too_old' });
    else expect(counted).toEqual([50, 'n', 0]);
  });

  it('counts no expired document', async () => {
    const { asked } = await start();
    const indexes = [{ fields: ['n'], unique: false }];
    await asked.store.define('notes', { indexes, ttl: { field: 'until', seconds: 0 } }, NONE);
    await asked.store.indexes?.built();
    await asked.create(['{"n":1}', '{"n":2,"until":"1990-01-01T00:00:00Z"}']);
    expect(await asked.count('{"n":{"$gt":0}}')).toEqual([1, 'n', 2]);
  });
}
