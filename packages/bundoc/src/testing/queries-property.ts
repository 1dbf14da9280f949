import type { Figure } from '@bundoc/shared/contract/query';
import fc from 'fast-check';
import { expect } from 'vitest';
import type { DefinedStore } from '../collections/defined-store.ts';
import type { Cursors } from '../crypto/sealed-cursor.ts';
import { Having } from '../queries/having.ts';
import { SCAN_LIMITS } from '../queries/scan-budget.ts';
import { whereSchema } from '../queries/where.ts';
import { Queries, type Selection } from '../service/queries.ts';
import { readValue } from '../values/value.ts';
import { ownWork } from '../work/scheduler.ts';
import { expectGroups, nameOf } from './naive-aggregate.ts';
import { type Naive, naiveCompare, naiveMatches, naiveOf, naiveValues } from './naive-query.ts';
import { documentText, flatText, whereText } from './query-arbitraries.ts';
import { put, remove } from './writes.ts';

const IDS = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
const NONE = { kind: 'none' } as const;

/** Fields of both indexes and conditions. */
const near = fc.constantFrom('a', 'b', 'c', 'a.b');
const indexes = fc.uniqueArray(fc.uniqueArray(near, { minLength: 1, maxLength: 2 }), {
  minLength: 1,
  maxLength: 3,
  selector: (fields) => fields.join('+'),
});
/** A step of a history of documents with these texts. */
const stepWith = (texts: fc.Arbitrary<string>) => {
  const write = fc.record({
    id: fc.constantFrom(...IDS),
    text: fc.option(texts, { nil: undefined, freq: 5 }),
  });
  return fc.oneof(
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
};
const history = fc
  .constantFrom(documentText, flatText)
  .chain((texts) => fc.array(stepWith(texts), { minLength: 2, maxLength: 6 }));
const figure: fc.Arbitrary<Figure> = fc.oneof(
  fc.constant<Figure>({ op: 'count' }),
  fc.record({
    op: fc.constantFrom('sum', 'avg', 'min', 'max', 'distinct', 'countDistinct'),
    field: near,
  }),
  fc.record({
    op: fc.constant('percentile'),
    field: near,
    percent: fc.oneof(
      fc.constantFrom(0, 100, 99.9, 33.333, 0.001),
      fc.integer({ min: 0, max: 100_000 }).map((thousandths) => thousandths / 1_000),
    ),
  }),
);
/** Conditions on the first figure, or on none. */
const having = fc.oneof(
  fc.constant('{}'),
  fc
    .tuple(fc.constantFrom('$gt', '$lte', '$eq', '$ne', '$size'), fc.nat({ max: 3 }), fc.boolean())
    .map(([op, operand, isNot]) => {
      const test = `{"${nameOf(0)}":{"${op}":${operand}}}`;
      return isNot ? `{"$nor":[${test}]}` : test;
    }),
);
/** Queries with any condition, order, page size and figures. */
export const asked = fc.record({
  where: fc.oneof(
    { weight: 2, arbitrary: whereText },
    // Conditions that an index can answer.
    {
      weight: 3,
      arbitrary: fc
        .tuple(
          near,
          near,
          fc.constantFrom('$eq', '$gt', '$gte', '$lt', '$lte', '$in', '$beginsWith', '$exists'),
          fc.constantFrom('$gt', '$lt', '$eq', '$exists'),
          fc.boolean(),
        )
        .map(([a, b, op, other, exists]) => {
          const operands: Partial<Record<string, string>> = {
            $in: '[1,2,"a",[1],{}]',
            $beginsWith: '"a"',
            $exists: `${exists}`,
          };
          const test = (of: string, number: number) => `{"${of}":${operands[of] ?? number}}`;
          return `{"$and":[{${JSON.stringify(a)}:${test(op, 1)}},{${JSON.stringify(b)}:${test(other, 2)}}]}`;
        }),
    },
    {
      weight: 1,
      arbitrary: fc
        .tuple(near, near, fc.constantFrom('$eq', '$in', '$gt', '$lte'), fc.constantFrom('$eq', '$lt'))
        .map(([a, b, op, other]) => {
          const operand = op === '$in' ? '[2,"a",[1]]' : '1';
          return `{"$or":[{${JSON.stringify(a)}:{"${op}":${operand}}},{${JSON.stringify(b)}:{"${other}":"ab"},"c":{"$exists":true}}]}`;
        }),
    },
    {
      weight: 2,
      arbitrary: fc
        .tuple(
          near,
          fc.constantFrom(
            '1',
            ...['$exists":true', '$gte":0', '$lt":"b"', '$in":[0,1,"a"]'].map((of) => `{"${of}}`),
          ),
        )
        .map(([one, test]) => `{${JSON.stringify(one)}:${test}}`),
    },
    { weight: 1, arbitrary: fc.constant('{}') },
  ),
  orderBy: fc.oneof(
    fc.constant([]),
    fc.array(fc.record({ field: near, direction: fc.constantFrom('asc' as const, 'desc' as const) }), {
      maxLength: 2,
    }),
  ),
  limit: fc.integer({ min: 1, max: 5 }),
  groupBy: fc.uniqueArray(near, { maxLength: 2 }),
  figures: fc.array(figure, { minLength: 1, maxLength: 4 }),
  having,
});

export interface Known {
  readonly id: string;
  readonly position: number;
  readonly value: Naive;
}

/** Ids in the order of the naive evaluator, which a query must have, too. */
export function expectedIds(
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

export async function contentOf(store: DefinedStore): Promise<Known[]> {
  const { documents } = await store.list({ collection: 'notes', after: 0, limit: 100, bytesMax: 1_000_000 });
  return documents.map(({ metadata, text, position }) => ({
    id: metadata._id,
    position,
    value: naiveOf(text.toString()),
  }));
}

/** A project whose process may crash. */
export interface CrashingProject {
  open(): Promise<DefinedStore>;
  /** Rotates the key. Stores that are opened later use the new version. */
  rotate(): Promise<void>;
  /** Makes the process crash after this many operations of its storage. */
  crashBehind(operations: number): void;
  /** Ends the process if it has not crashed yet. Later stores belong to a new process. */
  restart(): Promise<void>;
  readonly cursors: Cursors;
  /** Checks the storage at the end. */
  check?(): Promise<void>;
}

/** Figures of documents, with and without a condition on them, are those of the naive computation. */
async function expectFigures(
  finder: Queries,
  selection: Selection,
  matched: readonly Naive[],
  { groupBy, figures, having }: { groupBy: string[]; figures: Figure[]; having: string },
): Promise<void> {
  // The naive computation knows averages as text alone.
  const condition = figures[0]?.op === 'avg' ? '{}' : having;
  const names = figures.map((_, at) => nameOf(at));
  const where = whereSchema.parse(readValue(condition));
  const { groups } = await finder.aggregate(selection, groupBy, figures, new Having(where, names));
  expectGroups(groups, matched, groupBy, figures, condition);
}

/** How many pages were asked for, and found or ordered by an index, and how many counts read no document. */
export interface IndexUse {
  readonly pages: number;
  readonly found: number;
  readonly ordered: number;
  readonly counted: number;
}

/**
 * Queries find the same as a naive evaluator, in the same order, with any indexes, after updates, deletes,
 * crashes and re-seals, on any engine.
 */
export async function assertQueriesAreRight(
  make: (random: { readonly survival: 'synced only' | 'everything' }) => Promise<CrashingProject>,
  runs: number,
): Promise<IndexUse> {
  const use = { pages: 0, found: 0, ordered: 0, counted: 0 };
  await fc.assert(
    fc.asyncProperty(
      history,
      indexes,
      fc.array(asked, { minLength: 4, maxLength: 8 }),
      fc.nat({ max: 60 }),
      fc.constantFrom('synced only' as const, 'everything' as const),
      async (steps, first, queries, crashAt, survival) => {
        const project = await make({ survival });
        let store = await project.open();
        const define = (fields: readonly (readonly string[])[]) =>
          store.define('notes', { indexes: fields.map((of) => ({ fields: [...of], unique: false })) }, NONE);
        await define(first);
        project.crashBehind(crashAt);
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
              if (current.kind === 'rotate') await project.rotate();
              store = await project.open();
              if (current.kind === 'rotate') await store.reseal(100);
            }
          }
        } catch {
          // The crash came.
        }
        await project.restart();
        store = await project.open();
        await store.indexes?.built();
        const lease = {
          store,
          cursors: project.cursors,
          isUsable: () => true,
          [Symbol.dispose]: () => undefined,
        };
        const acquire = async () => lease;
        const limits = { ...SCAN_LIMITS, documentsMax: 1_000, bytesMax: 10_000_000 };
        const finder = new Queries({ acquire }, limits);
        const all = await contentOf(store);
        for (const one of queries) {
          const where = whereSchema.safeParse(readValue(one.where));
          if (!where.success) continue;
          const selection = {
            project: 'p',
            collection: 'notes',
            where: where.data,
            whereText: one.where,
            work: ownWork('p')('query'),
          };
          const found: string[] = [];
          let cursor: string | undefined;
          do {
            const page: Awaited<ReturnType<Queries['query']>> = await finder.query({
              ...selection,
              orderBy: [...one.orderBy],
              limit: one.limit,
              bytesMax: 1_000_000,
              cursor,
              fields: undefined,
            });
            found.push(...page.documents.map(({ metadata }) => metadata._id));
            cursor = page.next;
            use.pages++;
            if (page.explanation.index !== null) use.found++;
            if (page.explanation.order === 'index') use.ordered++;
          } while (cursor !== undefined);
          expect(found).toEqual(expectedIds(all, one));
          const { count, explanation } = await finder.count(selection);
          expect(count).toBe(found.length);
          if (count > 0 && explanation.documents_scanned === 0) use.counted++;
          const matched = all.filter(({ id }) => found.includes(id)).map(({ value }) => value);
          await expectFigures(finder, selection, matched, one);
        }
        await store[Symbol.asyncDispose]();
        await project.check?.();
      },
    ),
    { numRuns: runs, endOnFailure: false },
  );
  return use;
}
