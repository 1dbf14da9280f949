import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cursorsOf } from '../cipher/sealed-cursor.ts';
import { SCAN_LIMITS } from '../query/scan-budget.ts';
import { readValue } from '../query/value.ts';
import { whereSchema } from '../query/where.ts';
import { type DefinedStore, openDefinedStore } from '../storage/collections/defined-store.ts';
import { put, remove } from '../storage/conformance.ts';
import { EmbeddedProject } from '../testing/embedded-project.ts';
import { type Naive, naiveCompare, naiveMatches, naiveOf, naiveValues } from '../testing/naive-query.ts';
import { documentText, whereText } from '../testing/query-arbitraries.ts';
import type { SimulatedDisk } from '../testing/simulated-disk.ts';
import { Queries } from './queries.ts';

const RUNS = Number(process.env['QUERY_RUNS'] ?? 300);
const IDS = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
const NONE = { kind: 'none' } as const;

const write = fc.record({
  id: fc.constantFrom(...IDS),
  text: fc.option(documentText, { nil: undefined, freq: 5 }),
});
/** Fields that both indexes and conditions are of. */
const near = fc.constantFrom('a', 'b', 'c', 'a.b');
const indexes = fc.uniqueArray(fc.uniqueArray(near, { minLength: 1, maxLength: 2 }), {
  minLength: 1,
  maxLength: 3,
  selector: (fields) => fields.join('+'),
});
const step = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('writes' as const),
      writes: fc.array(write, { minLength: 1, maxLength: 6 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('define' as const), indexes }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constantFrom('checkpoint' as const, 'reopen' as const, 'rotate' as const),
    }),
  },
);
const asked = fc.record({
  where: fc.oneof(
    { weight: 2, arbitrary: whereText },
    // Conditions that an index is made for.
    {
      weight: 3,
      arbitrary: fc
        .tuple(
          near,
          near,
          fc.constantFrom('$eq', '$gt', '$gte', '$lt', '$lte', '$in', '$beginsWith'),
          fc.constantFrom('$gt', '$lt', '$eq'),
        )
        .map(([a, b, op, other]) => {
          const operand = { $in: '[1,2,"a",[1],{}]', $beginsWith: '"a"' }[op as string] ?? '1';
          return `{"$and":[{${JSON.stringify(a)}:{"${op}":${operand}}},{${JSON.stringify(b)}:{"${other}":2}}]}`;
        }),
    },
    { weight: 1, arbitrary: near.map((one) => `{${JSON.stringify(one)}:1}`) },
    { weight: 1, arbitrary: fc.constant('{}') },
  ),
  orderBy: fc.oneof(
    fc.constant([]),
    fc.array(fc.record({ field: near, direction: fc.constantFrom('asc' as const, 'desc' as const) }), {
      maxLength: 2,
    }),
  ),
  limit: fc.integer({ min: 1, max: 5 }),
});

interface Known {
  readonly id: string;
  readonly position: number;
  readonly value: Naive;
}

/** Ids in the order that a query must have them in, by the naive evaluator. */
function expectedIds(
  all: readonly Known[],
  { where, orderBy }: { where: string; orderBy: readonly { field: string; direction: 'asc' | 'desc' }[] },
): string[] {
  const condition = naiveOf(where);
  const down = orderBy.at(-1)?.direction === 'desc' ? -1 : 1;
  return all
    .filter(({ value }) => naiveMatches(value, condition))
    .sort((x, y) => {
      for (const { field, direction } of orderBy) {
        const names = field.split('.');
        const order = naiveCompare(naiveValues(x.value, names)[0], naiveValues(y.value, names)[0]);
        if (order !== 0) return direction === 'asc' ? order : -order;
      }
      return down * (x.position - y.position);
    })
    .map(({ id }) => id);
}

async function contentOf(store: DefinedStore): Promise<Known[]> {
  const { documents } = await store.list({ collection: 'notes', after: 0, limit: 100, bytesMax: 1_000_000 });
  return documents.map(({ metadata, text, position }) => ({
    id: metadata._id,
    position,
    value: naiveOf(text.toString()),
  }));
}

describe('queries', () => {
  it('find what a naive evaluator finds, in its order, whatever indexes there are, after updates, deletes, crashes and re-seals', async () => {
    const used = { index: 0, order: 0, all: 0 };
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 2, maxLength: 6 }),
        indexes,
        fc.array(asked, { minLength: 4, maxLength: 8 }),
        fc.nat({ max: 60 }),
        fc.constantFrom('synced only' as const, 'everything' as const),
        async (steps, first, queries, crashAt, survival) => {
          const project = new EmbeddedProject();
          let disk: SimulatedDisk = EmbeddedProject.disk();
          await project.create(disk);
          const open = async () => openDefinedStore(await project.open(disk), project.clock);
          let store = await open();
          const define = (fields: readonly (readonly string[])[]) =>
            store.define(
              'notes',
              { indexes: fields.map((of) => ({ fields: [...of], unique: false })) },
              NONE,
            );
          await define(first);
          disk.failAt({ operation: crashAt + 1, when: 'after', what: 'crash' });
          try {
            for (const current of steps) {
              if (current.kind === 'writes')
                await Promise.allSettled(
                  current.writes.map(({ id, text }) =>
                    store.commit([text === undefined ? remove(id) : put(id, text)]),
                  ),
                );
              else if (current.kind === 'define') await define(current.indexes);
              else if (current.kind === 'checkpoint') await store.checkpoint();
              else {
                await store[Symbol.asyncDispose]();
                if (current.kind === 'rotate') project.rotate();
                store = await open();
                if (current.kind === 'rotate') await store.reseal(100);
              }
            }
          } catch {
            // The crash came.
          }
          disk = disk.crashed ? disk.powerCut(survival) : disk.restart();
          store = await open();
          await store.indexes?.built();
          const finder = new Queries(
            {
              acquire: async () => ({
                store,
                cursors: cursorsOf('p', project.cipher),
                [Symbol.dispose]: () => undefined,
              }),
            },
            { ...SCAN_LIMITS, documentsMax: 1_000, bytesMax: 10_000_000 },
          );
          const all = await contentOf(store);
          for (const one of queries) {
            const where = whereSchema.safeParse(readValue(one.where));
            if (!where.success) continue;
            const found: string[] = [];
            let cursor: string | undefined;
            do {
              const page: Awaited<ReturnType<Queries['query']>> = await finder.query({
                project: 'p',
                collection: 'notes',
                where: where.data,
                whereText: one.where,
                signal: new AbortController().signal,
                orderBy: [...one.orderBy],
                limit: one.limit,
                bytesMax: 1_000_000,
                cursor,
                fields: undefined,
              });
              found.push(...page.documents.map(({ metadata }) => metadata._id));
              cursor = page.next;
              used.all++;
              if (page.explanation.index !== null) used.index++;
              if (page.explanation.order === 'index') used.order++;
            } while (cursor !== undefined);
            expect(found).toEqual(expectedIds(all, one));
          }
          await store[Symbol.asyncDispose]();
        },
      ),
      { numRuns: RUNS, endOnFailure: false },
    );
    // The indexes were put to use, for finding and for order.
    expect(used.index / used.all).toBeGreaterThan(0.1);
    expect(used.order).toBeGreaterThan(0);
  }, 300_000);
});
