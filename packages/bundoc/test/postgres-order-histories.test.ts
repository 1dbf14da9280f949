import { hasCode } from '@bundoc/shared/contract/app-error';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { LONG, runs } from '@bundoc/shared/testing/long';
import { needs } from '@bundoc/shared/testing/programs';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { DefinedStore } from '../src/collections/defined-store.ts';
import { TOMBSTONE_TTL_MS } from '../src/engine/port/port.ts';
import type { Database } from '../src/engine/postgres/database/database.ts';
import { openTestDatabase, type PostgresProject } from '../src/testing/postgres-project.ts';
import { asked, contentOf, expectedIds } from '../src/testing/queries-property.ts';
import { documentText } from '../src/testing/query-arbitraries.ts';
import { put, remove } from '../src/testing/writes.ts';
import { OrderUse, watchedDatabase } from './support/counted-database.ts';
import { type Asked, ask } from './support/ordered-queries.ts';
import {
  database,
  findings,
  NONE,
  newProject,
  openOn,
  RUNS,
  SMALL,
  server,
  usePostgresIndexes,
} from './support/postgres-indexes.ts';

const SEED = Number(process.env['ORDER_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const NODES = 3;
const IDS = 'abcdefghijklmnop'.split('');

const field = fc.constantFrom('a', 'b', 'c', 'a.b');
const definition = fc.uniqueArray(fc.uniqueArray(field, { minLength: 1, maxLength: 2 }), {
  minLength: 1,
  maxLength: 3,
  selector: (fields) => fields.join('+'),
});
/** Most documents have one value in each field, so that many answers come in an index's order. */
const plain = fc
  .tuple(fc.integer({ min: 0, max: 9 }), fc.constantFrom('1', '2', '"a"', '"ab"', '"abc"', 'null'))
  .map(([a, b]) => `{"a":${a},"b":${b}}`);
const text = fc.oneof({ weight: 8, arbitrary: plain }, { weight: 1, arbitrary: documentText });
const write = fc.record({
  node: fc.nat({ max: NODES - 1 }),
  id: fc.constantFrom(...IDS),
  text: fc.option(text, { nil: undefined, freq: 4 }),
});
const node = fc.nat({ max: NODES - 1 });
/** Questions that an index on a field can answer in order. */
const inOrder = fc
  .record({
    field: fc.constantFrom('a', 'b'),
    direction: fc.constantFrom('asc' as const, 'desc' as const),
    condition: fc.constantFrom('{"$gte":3}', '{"$lt":"ab"}', '{"$beginsWith":"a"}', '{"$exists":true}'),
    limit: fc.integer({ min: 1, max: 4 }),
  })
  .map(({ field, direction, condition, limit }) => {
    return { where: `{"${field}":${condition}}`, orderBy: [{ field, direction }], limit };
  });
const step = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      kind: fc.constant('write' as const),
      writes: fc.array(write, { minLength: 1, maxLength: 8 }),
    }),
  },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('keep' as const), node, isAwaited: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('prune' as const, 'reopen' as const), node }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('define' as const), node, fields: definition }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('rotate' as const, 'forget' as const), node }) },
  {
    weight: 10,
    arbitrary: fc.record({ kind: fc.constant('ask' as const), node, asked: fc.oneof(asked, inOrder) }),
  },
);
type Step = typeof step extends fc.Arbitrary<infer S> ? S : never;

/** A project that some nodes write and query. */
class History {
  readonly #project: PostgresProject;
  readonly #clock: FakeClock;
  readonly #databases: readonly Database[];
  readonly stores: DefinedStore[] = [];
  ordered = 0;
  byIndex = 0;
  further = 0;

  constructor(project: PostgresProject, clock: FakeClock, databases: readonly Database[]) {
    this.#project = project;
    this.#clock = clock;
    this.#databases = databases;
  }

  async apply(step: Step): Promise<void> {
    switch (step.kind) {
      case 'write':
        await Promise.all(
          step.writes.map(({ node, id, text }) =>
            this.#use(node, (store) => store.commit([text === undefined ? remove(id) : put(id, text)])),
          ),
        );
        return;
      case 'keep':
        await this.#use(step.node, (store) => store.load());
        if (step.isAwaited) await this.stores[step.node]?.indexes?.built();
        return;
      case 'prune':
        this.#clock.advance(TOMBSTONE_TTL_MS + 1);
        await this.#use(step.node, (store) => store.checkpoint());
        return;
      case 'reopen':
        return await this.reopen(step.node);
      case 'define':
        await this.#use(step.node, (store) => this.define(store, step.fields));
        return;
      case 'rotate':
        // The other nodes still have the former version.
        await this.#project.rotate(database);
        await this.reopen(step.node);
        await this.#use(step.node, (store) => store.reseal(3));
        return;
      case 'forget':
        await this.reopen(step.node);
        // Tombstones are not re-sealed.
        this.#clock.advance(TOMBSTONE_TTL_MS + 1);
        await this.#use(step.node, async (store) => {
          await store.checkpoint();
          while ((await store.reseal(5)).goesOn);
        });
        this.#project.forgetFormerVersions();
        for (let at = 0; at < NODES; at++) await this.reopen(at);
        return;
      case 'ask':
        await this.#check(step.node, step.asked);
    }
  }

  async define(store: DefinedStore, fields: readonly (readonly string[])[]): Promise<void> {
    const indexes = fields.map((of) => ({ fields: [...of], unique: false }));
    await store.define('notes', { indexes }, NONE);
  }

  async reopen(node: number): Promise<void> {
    await this.stores[node]?.[Symbol.asyncDispose]();
    this.stores[node] = await openOn(this.#project, this.#databases[node]);
  }

  /** No store writes now, so the answer and the list are of one state. */
  async #check(node: number, one: Asked): Promise<void> {
    const answer = await this.#use(node, (store) => ask(store, this.#project, one));
    if (answer === undefined) return;
    const all = await this.#use(node, contentOf);
    expect(answer.ids).toEqual(expectedIds(all ?? [], { where: one.where, orderBy: one.orderBy ?? [] }));
    expect(answer.unreadable).toEqual([]);
    if (answer.index !== null) this.byIndex++;
    if (answer.isOrdered) this.ordered++;
    if (answer.pages > 1) this.further++;
  }

  /** A node that does not know the version of the key is reopened. Undefined for what a race refuses. */
  async #use<T>(node: number, use: (store: DefinedStore) => Promise<T>): Promise<T | undefined> {
    for (let attempts = 1; ; attempts++)
      try {
        const store = this.stores[node] as DefinedStore;
        if (store.failed) await this.reopen(node);
        return await use(this.stores[node] as DefinedStore);
      } catch (error) {
        const isRefused = ['document_not_found', 'precondition_failed', 'definition_conflict'].some((code) =>
          hasCode(error, code as Parameters<typeof hasCode>[1]),
        );
        if (isRefused) return undefined;
        if (attempts === 5 || !(hasCode(error, 'storage_unavailable') || hasCode(error, 'overloaded')))
          throw error;
        // Another node has changed the indexes, which this one learns now.
        await this.stores[node]?.load().catch(() => undefined);
      }
  }
}

describe('ordered indexes on PostgreSQL', needs('postgresql'), () => {
  usePostgresIndexes();
  const stack = new AsyncDisposableStack();
  const use = new OrderUse();
  const databases: Database[] = [];
  beforeAll(() => {
    for (let at = 0; at < NODES; at++) {
      const own = stack.use(openTestDatabase(server.urlOf('bundoc')));
      databases.push(watchedDatabase(own, use.add));
    }
  });
  afterAll(() => stack.disposeAsync());

  it(
    `answer as a naive evaluator on every node, after any history of nodes that write, define, merge, rotate and purge (ORDER_SEED=${SEED})`,
    async () => {
      const seen = { ordered: 0, byIndex: 0, further: 0 };
      await fc.assert(
        fc.asyncProperty(
          fc.array(step, { minLength: 20, maxLength: 40 }),
          definition,
          fc.array(asked, { minLength: 3, maxLength: 6 }),
          async (steps, first, last) => {
            const clock = new FakeClock();
            const project = await newProject({ orderSizes: SMALL, clock });
            const history = new History(project, clock, databases);
            try {
              for (let at = 0; at < NODES; at++) await history.reopen(at);
              await history.define(history.stores[0] as DefinedStore, first);
              for (const step of steps) await history.apply(step);
              for (let node = 0; node < 2 * NODES; node++)
                await history.apply({ kind: 'keep', node: node % NODES, isAwaited: true });
              for (const [at, one] of last.entries())
                await history.apply({ kind: 'ask', node: at % NODES, asked: one });
              expect(await findings(project)).toEqual([]);
              expect(project.damaged).toEqual([]);
            } finally {
              for (const store of history.stores) await store[Symbol.asyncDispose]();
              seen.ordered += history.ordered;
              seen.byIndex += history.byIndex;
              seen.further += history.further;
            }
          },
        ),
        { numRuns: runs(RUNS, 2_000), seed: SEED, endOnFailure: true },
      );
      // They would also be right if no index were used.
      expect(seen.byIndex).toBeGreaterThan(0);
      // Few histories may lack one of these.
      const rare = [seen.ordered, seen.further, use.swaps, use.pages, use.gone];
      expect(rare.filter((count) => count > 0).length).toBeGreaterThan(LONG ? rare.length - 1 : 1);
    },
    runs(120_000, 14_400_000),
  );
});
