import { AppError } from '@bundoc/shared/contract/app-error';
import { describe, expect, it, vi } from 'vitest';
import { openDefinedStore } from '../collections/defined-store.ts';
import { cursorsOf } from '../crypto/sealed-cursor.ts';
import type { DocumentPage, ProjectStore } from '../engine/port/port.ts';
import { type FoundEntry, type IndexSearch, StateMoved } from '../engine/port/snapshot-port.ts';
import { Having } from '../queries/having.ts';
import { SCAN_LIMITS, type ScanLimits } from '../queries/scan-budget.ts';
import { type Where, whereSchema } from '../queries/where.ts';
import { ProjectInFiles } from '../testing/project-in-files.ts';
import { SlowSteps } from '../testing/slow-steps.ts';
import { WorkBench } from '../testing/work-bench.ts';
import { commitOne, put, remove } from '../testing/writes.ts';
import { readValue } from '../values/value.ts';
import { LARGE_BYTES } from '../work/large-bytes.ts';
import { ownWork, Scheduler } from '../work/scheduler.ts';
import { Queries, type QueryRequest } from './queries.ts';

const where = (text: string): Where => whereSchema.parse(readValue(text));
const selection = (text: string, work = ownWork('p')('query')) => ({
  project: 'p',
  collection: 'notes',
  where: where(text),
  whereText: text,
  work,
});
const request = (over: Partial<QueryRequest> = {}): QueryRequest => ({
  ...selection('{}'),
  orderBy: [],
  limit: 100,
  bytesMax: 1_000_000,
  cursor: undefined,
  fields: undefined,
  ...over,
});

async function start(limits: Partial<ScanLimits>, onAcquire = () => {}) {
  const project = new ProjectInFiles();
  const disk = ProjectInFiles.disk();
  await project.create(disk);
  const files = await project.open(disk);
  const store = await openDefinedStore(files, project.clock);
  const leases = { taken: 0, held: 0, areUsable: true };
  const queries = new Queries(
    {
      acquire: async () => {
        await Promise.resolve();
        onAcquire();
        leases.taken++;
        leases.held++;
        return {
          store,
          cursors: cursorsOf('p', project.cipher),
          isUsable: () => leases.areUsable,
          [Symbol.dispose]: () => {
            leases.held--;
          },
        };
      },
    },
    { ...SCAN_LIMITS, ...limits },
  );
  /** Damages the file of a document. */
  const damage = async (id: string) => {
    await files.checkpoint();
    disk.tamper(`/p/docs/${project.cipher.fileName({ collection: 'notes', id })}`, Buffer.from('x'));
  };
  return { files, store, queries, leases, damage };
}

describe('the cost of one request', () => {
  it('is limited in operators times values, for one document and for all', async () => {
    const { store, queries } = await start({ documentWorkMax: 2_000_000, workMax: 5_000_000 });
    const numbers = Array(100_000).fill(1).join();
    for (let n = 0; n < 4; n++) await commitOne(store, put(`d${n}`, `{"n":[${numbers}]}`));
    const asking = (operators: number) =>
      selection(`{"$and":[${Array(operators).fill('{"n":{"$not":{"$gt":5}}}').join()}]}`);
    const refusal = { code: 'query_too_expensive', detail: expect.stringContaining('fewer operators') };
    expect((await queries.count(asking(10))).count).toBe(4);
    await expect(queries.count(asking(15))).rejects.toMatchObject(refusal);
    await expect(queries.count(asking(25))).rejects.toMatchObject(refusal);
    const ofElements = `{"n":{"$elemMatch":{${['$gt', '$gte', '$lt', '$ne'].map((op) => `"${op}":9`).join()}}}}`;
    await expect(
      queries.count(selection(`{"$or":[${Array(5).fill(ofElements).join()}]}`)),
    ).rejects.toMatchObject(refusal);
  });

  it('yields within a page of documents, and not when nobody waits', async () => {
    const { store, queries, leases } = await start({});
    const numbers = Array(20_000).fill(1).join();
    for (let n = 0; n < 8; n++) await commitOne(store, put(`d${n}`, `{"n":[${numbers}]}`));
    const condition = `{"$and":[${Array(9).fill('{"n":{"$ne":5}}').join()}]}`;
    const steps = new SlowSteps();
    expect((await queries.count(selection(condition, steps.work('query')))).count).toBe(8);
    expect(steps.turns).toBeGreaterThan(8);
    const stop = new AbortController();
    const counting = queries.count(selection(condition, steps.work('query', stop.signal)));
    stop.abort(new Error('nobody waits'));
    await expect(counting).rejects.toThrow('nobody waits');
    expect([steps.scheduler.waiting, leases.held]).toEqual([0, 0]);
  });

  it('does not include the time to open the project, for any purpose', async () => {
    const bench = new WorkBench();
    const { store, queries } = await start({}, () => bench.take(5_000_000));
    for (let n = 0; n < 3; n++) await commitOne(store, put(`d${n}`, `{"n":${n}}`));
    const scheduler = new Scheduler({ nowMs: bench.ports.nowMs });
    const page = async (cursor: string | undefined) => {
      using work = scheduler.work({ subject: 's', project: 'p' }, 'query');
      await work.pause();
      return await queries.query(request({ work, limit: 1, cursor }));
    };
    const { next } = await page(undefined);
    expect((await page(next)).next).toBeDefined();
    // The documents that it read count by their bytes.
    expect(scheduler.usedS('query')).toBeLessThan(1e-6);
  });

  it('makes a bounded number of comparisons on the figures of one group', async () => {
    const { store, queries } = await start({});
    for (let n = 0; n < 600; n++) await commitOne(store, put(`d${n}`, `{"n":${n}}`));
    const ask = (condition: string) =>
      queries.aggregate(
        selection('{}'),
        [],
        [{ op: 'distinct', field: 'n' }],
        new Having(where(condition), ['all']),
      );
    expect((await ask('{"all":{"$size":600}}')).groups).toHaveLength(1);
    expect((await ask('{"all":{"$gt":600}}')).groups).toHaveLength(0);
    const many = Array.from({ length: 99 }, (_, n) => `{"all":${n}}`);
    await expect(ask(`{"$and":[${many}]}`)).rejects.toMatchObject({
      code: 'query_too_expensive',
      detail: expect.stringContaining('countDistinct'),
    });
  });

  it('is limited in documents, and the refusal names the index that would help', async () => {
    const { store, queries } = await start({ documentsMax: 5, bytesMax: 1_000_000 });
    for (let n = 0; n < 6; n++) await commitOne(store, put(`d${n}`, `{"n":${n}}`));
    const asked = selection('{"b":{"$gt":1},"$and":[{"a":1},{"$or":[{"c":1},{"d":1}]}]}');
    const refusal = {
      code: 'query_too_expensive',
      detail: expect.stringContaining('an index on ["a","b"] would help'),
    };
    await expect(queries.count(asked)).rejects.toMatchObject(refusal);
    await expect(queries.aggregate(asked, [], [{ op: 'count' }])).rejects.toMatchObject(refusal);
    await expect(
      queries.query(request({ ...asked, orderBy: [{ field: 'o', direction: 'asc' }] })),
    ).rejects.toMatchObject({
      code: 'query_too_expensive',
      detail: expect.stringContaining('an index on ["a","b","o"]'),
    });
    await commitOne(store, remove('d0'));
    expect((await queries.count(selection('{}'))).count).toBe(5);
  });

  it('includes expired documents that still exist, whether an index finds them or not', async () => {
    const { store, queries } = await start({ documentsMax: 30 });
    for (let n = 0; n < 25; n++)
      await commitOne(
        store,
        put(`d${n}`, `{"g":${n % 2},"until":"${n < 20 ? 1990 : 2990}-01-01T00:00:00Z"}`),
      );
    const indexes = [{ fields: ['g'], unique: false }];
    for (const definition of [{ indexes: [] }, { indexes }]) {
      await store.define('notes', { ...definition, ttl: { field: 'until', seconds: 0 } }, { kind: 'none' });
      await store.indexes?.built();
      const { documents, explanation } = await queries.query(request(selection('{"g":0}')));
      const isIndexed = definition.indexes.length > 0;
      expect([documents.length, explanation.index, explanation.documents_scanned]).toEqual(
        isIndexed ? [3, 'g', 13] : [3, null, 25],
      );
    }
    for (let n = 25; n < 31; n++)
      await commitOne(store, put(`d${n}`, '{"g":2,"until":"1990-01-01T00:00:00Z"}'));
    await expect(queries.query(request(selection('{"h":1}')))).rejects.toMatchObject({
      code: 'query_too_expensive',
    });
  });

  it('is limited in bytes', async () => {
    const { store, queries } = await start({ documentsMax: 100, bytesMax: 3_000 });
    for (let n = 0; n < 3; n++) await commitOne(store, put(`d${n}`, `{"pad":"${'x'.repeat(1_000)}"}`));
    await expect(queries.count(selection('{}'))).rejects.toMatchObject({ code: 'query_too_expensive' });
  });

  it('includes the documents that a page visits, and not those before its cursor', async () => {
    const { store, queries } = await start({ documentsMax: 4, bytesMax: 1_000_000 });
    for (let n = 0; n < 10; n++) await commitOne(store, put(`d${n}`, '{}'));
    const ids: string[] = [];
    for (let cursor: string | undefined, pages = 0; pages < 5; pages++) {
      const page = await queries.query(request({ limit: 3, cursor }));
      ids.push(...page.documents.map(({ metadata }) => metadata._id));
      cursor = page.next;
      if (cursor === undefined) break;
    }
    expect(ids).toEqual(Array.from({ length: 10 }, (_, n) => `d${n}`));
  });
});

describe('a scan', () => {
  it('opens a few documents first, and more later', async () => {
    const { store, queries } = await start({});
    for (let n = 0; n < 30; n++)
      await commitOne(store, put(`d${n}`, `{"n":1,"pad":"${'x'.repeat(60_000)}"}`));
    const snapshot = await store.snapshot('notes');
    vi.spyOn(store, 'snapshot').mockReturnValue(snapshot);
    const list = vi.spyOn(snapshot, 'list');
    expect((await queries.count(selection('{"n":{"$gt":5}}'))).count).toBe(0);
    const pages = await Promise.all(list.mock.results.map(({ value }) => value as Promise<DocumentPage>));
    expect(pages.map(({ documents }) => documents.length)).toEqual([2, 4, 8, 16]);
  });
});

describe('a document that is undecryptable', () => {
  it('is named and left out, whether an index finds it or not', async () => {
    const { store, queries, damage } = await start({});
    await store.define('notes', { indexes: [{ fields: ['g'], unique: false }] }, { kind: 'none' });
    await store.indexes?.built();
    for (const id of ['a', 'b', 'c']) await commitOne(store, put(id, '{"g":1,"h":1}'));
    await damage('b');
    for (const [text, index] of [
      ['{"g":1}', 'g'],
      ['{"h":1}', null],
    ] as const) {
      const { documents, unreadable, explanation } = await queries.query(request(selection(text)));
      expect(documents.map(({ metadata }) => metadata._id)).toEqual(['a', 'c']);
      expect([unreadable, explanation.index]).toEqual([['b'], index]);
    }
  });

  it('does not hide a failure of the storage', async () => {
    const { store, queries } = await start({});
    await commitOne(store, put('a', '{"g":1}'));
    await store.define('notes', { indexes: [{ fields: ['g'], unique: false }] }, { kind: 'none' });
    await store.indexes?.built();
    const snapshot = await store.snapshot('notes');
    vi.spyOn(store, 'snapshot').mockReturnValue(snapshot);
    vi.spyOn(snapshot, 'getSync').mockReturnValue(undefined);
    vi.spyOn(snapshot, 'get').mockRejectedValue(new AppError('storage_unavailable'));
    const refused = queries.query(request(selection('{"g":1}')));
    await expect(refused).rejects.toMatchObject({ code: 'storage_unavailable' });
  });
});

describe('an index whose searches read documents', () => {
  const EXPIRED = '{"g":3,"until":"1990-01-01T00:00:00Z"}';

  /** Lets the searches of a store read the documents that they find, as those of a database do. */
  function readDocuments(store: ProjectStore, onSearch: (query: IndexSearch) => void): void {
    const take = store.snapshot.bind(store);
    vi.spyOn(store, 'snapshot').mockImplementation(async (collection, options) => {
      const snapshot = await take(collection, options);
      const search = snapshot.search?.bind(snapshot);
      snapshot.search = async (query) => {
        onSearch(query);
        const page = await search?.(query);
        const entries: FoundEntry[] = [];
        const unreadable: string[] = [];
        for (const entry of page?.entries ?? [])
          try {
            const document = await snapshot.get(entry.id);
            if (document !== undefined) entries.push({ ...entry, document });
          } catch {
            unreadable.push(entry.id);
          }
        return page && { ...page, entries, unreadable };
      };
      return snapshot;
    });
  }

  it('serves ranges, orders and counts, without damaged and expired documents', async () => {
    const { files, store, queries, damage } = await start({ documentsMax: 7 });
    const indexes = [{ fields: ['g'], unique: false }];
    await store.define('notes', { indexes, ttl: { field: 'until', seconds: 0 } }, { kind: 'none' });
    await store.indexes?.built();
    for (let n = 0; n < 6; n++) await commitOne(store, put(`d${n}`, n === 3 ? EXPIRED : `{"g":${n}}`));
    await damage('d2');
    readDocuments(files, () => undefined);
    const orderBy = [{ field: 'g', direction: 'desc' as const }];
    for (const over of [{ orderBy }, {}]) {
      const asked = request({ ...selection('{"g":{"$gte":1}}'), ...over });
      const { documents, unreadable, explanation } = await queries.query(asked);
      const ids = documents.map(({ metadata }) => metadata._id);
      expect('orderBy' in over ? ids.toReversed() : ids).toEqual(['d1', 'd4', 'd5']);
      expect([unreadable, explanation.index, explanation.documents_scanned]).toEqual([['d2'], 'g', 5]);
    }
    for (let n = 6; n < 9; n++) await commitOne(store, put(`d${n}`, '{"g":9}'));
    await expect(queries.count(selection('{"g":{"$gt":0}}'))).rejects.toMatchObject({
      code: 'query_too_expensive',
    });
  });

  it('begins an answer again when it is not as it was described, twice at most', async () => {
    const { files, store, queries } = await start({});
    await store.define('notes', { indexes: [{ fields: ['g'], unique: false }] }, { kind: 'none' });
    await store.indexes?.built();
    for (const [id, text] of [
      ['a', '{"g":[9,1]}'],
      ['b', '{"g":2}'],
    ] as const)
      await commitOne(store, put(id, text));
    let moves = 2;
    readDocuments(files, () => {
      if (moves-- > 0) throw new StateMoved();
    });
    const asked = request({ ...selection('{"g":{"$gt":0}}'), orderBy: [{ field: 'g', direction: 'asc' }] });
    const { documents, explanation } = await queries.query(asked);
    expect(documents.map(({ metadata }) => metadata._id)).toEqual(['b', 'a']);
    expect(explanation).toMatchObject({ index: 'g', order: 'sorted' });
    moves = 3;
    await expect(queries.query(asked)).rejects.toThrow(StateMoved);
  });
});

describe('a page', () => {
  it('ends early when its documents are large, in any order, and the next one continues after it', async () => {
    const { store, queries } = await start({ documentsMax: 100, bytesMax: 1_000_000 });
    for (let n = 0; n < 7; n++)
      await commitOne(store, put(`d${n}`, `{"n":${n % 4},"pad":"${'x'.repeat(1_000)}"}`));
    for (const orderBy of [[], [{ field: 'n', direction: 'desc' as const }]]) {
      const sizes: number[] = [];
      const ids = new Set<string>();
      let cursor: string | undefined;
      do {
        const page: Awaited<ReturnType<Queries['query']>> = await queries.query(
          request({ orderBy, cursor, bytesMax: 2_500 }),
        );
        sizes.push(page.documents.length);
        for (const { metadata } of page.documents) ids.add(metadata._id);
        cursor = page.next;
      } while (cursor !== undefined);
      expect([sizes, ids.size]).toEqual([[2, 2, 2, 1], 7]);
    }
  });
});

describe('a request whose caller has left', () => {
  it('ends, and holds no project open', async () => {
    const { store, queries, leases } = await start({ documentsMax: 1_000, bytesMax: 1_000_000 });
    for (let n = 0; n < 250; n++) await commitOne(store, put(`d${n}`, '{}'));
    const controller = new AbortController();
    const work = new Scheduler().work({ subject: 's', project: 'p' }, 'query', controller.signal);
    const counting = queries.count(selection('{}', work));
    controller.abort(new AppError('request_timeout'));
    await expect(counting).rejects.toMatchObject({ code: 'request_timeout' });
    expect(leases.held).toBe(0);
  });

  it('holds no project open while a large document waits for its thread', async () => {
    const { store, queries, leases } = await start({});
    await commitOne(store, put('large', `{"n":1,"pad":"${'x'.repeat(LARGE_BYTES)}"}`));
    const scheduler = new Scheduler();
    const run = scheduler.large.run.bind(scheduler.large);
    const held: number[] = [];
    scheduler.large.run = ((...args: Parameters<typeof run>) => {
      held.push(leases.held);
      return run(...args);
    }) as typeof run;
    const work = scheduler.work({ subject: 's', project: 'p' }, 'query');
    expect((await queries.query(request({ ...selection('{"n":1}', work) }))).documents).toHaveLength(1);
    expect(held).toEqual([0]);
    await scheduler[Symbol.asyncDispose]();
  });

  it('holds one lease while it is usable, so that no key is used after its end', async () => {
    const { store, queries, leases } = await start({ documentsMax: 1_000, bytesMax: 1_000_000 });
    for (let n = 0; n < 250; n++) await commitOne(store, put(`d${n}`, '{}'));
    await queries.query(request({ limit: 10 }));
    expect(leases).toMatchObject({ taken: 1, held: 0 });
    await queries.count(selection('{}'));
    expect(leases).toMatchObject({ taken: 2, held: 0 });
    leases.areUsable = false;
    await queries.count(selection('{}'));
    // Once to plan, then for each page.
    expect(leases).toMatchObject({ taken: 6, held: 0 });
  });
});
