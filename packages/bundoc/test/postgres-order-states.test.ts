import { randomInt } from 'node:crypto';
import { runs } from '@bundoc/shared/testing/long';
import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import type { DefinedStore } from '../src/collections/defined-store.ts';
import type { Database } from '../src/engine/postgres/database/database.ts';
import { openTestDatabase, type PostgresProject } from '../src/testing/postgres-project.ts';
import { put } from '../src/testing/writes.ts';
import { OrderUse, watchedDatabase } from './support/counted-database.ts';
import { ask } from './support/ordered-queries.ts';
import {
  close,
  findings,
  NONE,
  newProject,
  openOn,
  server,
  settled,
  usePostgresIndexes,
} from './support/postgres-indexes.ts';
import { isRefusal, openAccounts, replace, transfer } from './support/transfers.ts';

const SEED = Number(process.env['TRANSFERS_SEED'] ?? randomInt(2 ** 31));
const ANSWERS = runs(150, 50_000);
const WRITERS = 4;
const READERS = 8;
const ACCOUNTS = 200;
const SUM = 200_000;
/** Runs of some pages each; merges go on all the time. */
const SIZES = {
  buildDocuments: 30,
  segmentEntries: 50,
  segmentUnits: 100_000,
  tailChanges: 16,
  tailBytes: 100_000,
  tailChangesMax: 64,
  commitsUnseenMax: 30,
};

let seed = SEED;
/** mulberry32. */
function below(count: number): number {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * count);
}

/** Questions whose answers have all accounts, or all of one bank, in one state. */
const QUESTIONS = [
  { where: '{"balance":{"$gte":-1000000}}', accounts: ACCOUNTS },
  { where: '{"balance":{"$gte":-1000000}}', orderBy: 'balance', direction: 'desc', accounts: ACCOUNTS },
  { where: '{"bank":{"$beginsWith":"n"}}', orderBy: 'bank', direction: 'asc', accounts: ACCOUNTS / 2 },
  { where: '{"bank":{"$in":["south","west","east"]}}', accounts: ACCOUNTS / 2 },
  {
    where: '{"bank":"south","balance":{"$lte":1000000}}',
    orderBy: 'balance',
    direction: 'asc',
    accounts: ACCOUNTS / 2,
  },
  { where: '{"$or":[{"balance":{"$lt":1000}},{"balance":{"$gte":1000}}]}', accounts: ACCOUNTS },
] as const;

describe('ordered indexes on PostgreSQL', needs('postgresql'), () => {
  usePostgresIndexes();

  it(
    `show one state in every answer, while two nodes transfer and merge (TRANSFERS_SEED=${SEED})`,
    async () => {
      const project = await newProject({ orderSizes: SIZES });
      await using stack = new AsyncDisposableStack();
      const use = new OrderUse();
      const nodes: DefinedStore[] = [];
      for (let at = 0; at < 2; at++) {
        const own = stack.use(openTestDatabase(server.urlOf('bundoc'), { connectionsMax: 20 }));
        nodes.push(stack.use(await openOn(project, watchedDatabase(own, use.add))));
      }
      const any = () => nodes[below(nodes.length)] as DefinedStore;
      const indexes = [['balance'], ['bank'], ['bank', 'balance']].map((fields) => ({
        fields,
        unique: false,
      }));
      await nodes[0]?.define('notes', { indexes }, NONE);
      await openAccounts(nodes[0] as DefinedStore);
      for (const node of nodes) await settled(node);

      const seen = { answers: 0, byIndex: 0, transfers: 0, refusals: 0 };
      const impossible: string[] = [];
      const untilEnough = async (act: () => Promise<void>) => {
        while (seen.answers < ANSWERS && impossible.length === 0)
          await act().catch((error: unknown) => {
            if (!isRefusal(error)) throw error;
            seen.refusals++;
          });
      };
      const write = () =>
        untilEnough(async () => {
          await (below(5) === 0 ? replace : transfer)(any(), below);
          seen.transfers++;
        });
      const read = () =>
        untilEnough(async () => {
          const { accounts, ...question } = QUESTIONS[below(QUESTIONS.length)] as (typeof QUESTIONS)[number];
          const orderBy =
            'orderBy' in question ? [{ field: question.orderBy, direction: question.direction }] : [];
          const answer = await ask(any(), project, { where: question.where, orderBy, limit: 1_000 });
          const sum = answer?.texts.reduce(
            (all, text) => all + (JSON.parse(text) as { balance: number }).balance,
            0,
          );
          const shown = `${answer?.ids.length} ${new Set(answer?.ids).size} ${sum}`;
          const expected = `${accounts} ${accounts} ${(SUM * accounts) / ACCOUNTS}`;
          if (shown !== expected) impossible.push(`${JSON.stringify(question)}: ${shown}, not ${expected}`);
          if (answer?.index !== null) seen.byIndex++;
          seen.answers++;
        });
      const keep = (node: DefinedStore) =>
        untilEnough(async () => {
          await node.load();
          await node.indexes?.built();
        });
      await Promise.all([
        ...Array.from({ length: WRITERS }, write),
        ...Array.from({ length: READERS }, read),
        ...nodes.map(keep),
      ]);
      expect(impossible).toEqual([]);
      expect(seen.byIndex).toBe(seen.answers);
      expect(seen.transfers).toBeGreaterThan(ANSWERS / 20);
      for (const count of [use.swaps, use.pages, use.gone]) expect(count).toBeGreaterThan(5);
      expect(use.resets).toBe(0);
      for (const node of nodes) await settled(node);
      expect(await findings(project)).toEqual([]);
    },
    runs(120_000, 14_400_000),
  );

  it('stay right when the answers of statements come in another order than the states that they show', async () => {
    // A tail of more than one statement, which becomes several runs.
    const orderSizes = { ...SIZES, segmentEntries: 10_000, tailChanges: 1_000, tailChangesMax: 2_000 };
    const project = await newProject({
      orderSizes: { ...orderSizes, tailBytes: 1_000_000, commitsUnseenMax: 10_000 },
    });
    await using worker = new HeldStore();
    await using reader = new HeldStore();
    await worker.open(project);
    await reader.open(project);
    await worker.store.define('notes', { indexes: [{ fields: ['n'], unique: false }] }, NONE);
    await settled(worker.store);
    await settled(reader.store);
    const asked = { where: '{"n":{"$gte":2900}}', orderBy: [{ field: 'n', direction: 'asc' as const }] };
    const count = async () => (await ask(reader.store, project, asked))?.ids.length;
    for (let from = 0; from < 3_000; from += 1_000)
      await worker.store.commit(
        Array.from({ length: 1_000 }, (_, at) => put(`d${from + at}`, `{"n":${from + at}}`)),
      );
    expect(await count()).toBe(100);
    // Meanwhile no commit is made.
    const swapped = worker.hold('bundoc-swap-runs');
    await worker.store.load();
    await swapped.isRun;
    const late = reader.hold('bundoc-read-ordered');
    const first = count();
    await late.isRun;
    // So the pages of the runs that it shows are known.
    expect(await count()).toBe(100);
    swapped.release();
    await worker.store.indexes?.built();
    expect(await count()).toBe(100);
    late.release();
    expect(await first).toBe(100);
    expect(await count()).toBe(100);
    await close(worker.store, reader.store);
  });
});

/** A store on a database that holds back answers of statements. */
class HeldStore implements AsyncDisposable {
  readonly #database = openTestDatabase(server.urlOf('bundoc'));
  #held: { readonly name: string; readonly isRun: () => void; readonly released: Promise<void> } | undefined;
  store!: DefinedStore;

  async open(project: PostgresProject): Promise<void> {
    const held: Database = Object.create(this.#database, {
      run: { value: this.#database.run.bind(this.#database) },
      transaction: { value: this.#database.transaction.bind(this.#database) },
      query: {
        value: async (...[statement, values]: Parameters<Database['query']>) => {
          const rows = await this.#database.query(statement, values);
          const of = this.#held;
          if (of === undefined || !statement.name.startsWith(of.name)) return rows;
          this.#held = undefined;
          of.isRun();
          await of.released;
          return rows;
        },
      },
    });
    this.store = await openOn(project, held);
  }

  /** Holds back the answer of the next statement with a name, which the server has run then. */
  hold(name: string): { readonly isRun: Promise<void>; release(): void } {
    const run = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    this.#held = { name, isRun: run.resolve, released: release.promise };
    return { isRun: run.promise, release: release.resolve };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#database[Symbol.asyncDispose]();
  }
}
