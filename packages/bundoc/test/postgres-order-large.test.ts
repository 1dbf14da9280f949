import { setTimeout as sleep } from 'node:timers/promises';
import { LONG, runs } from '@bundoc/shared/testing/long';
import { needs } from '@bundoc/shared/testing/programs';
import { startInBackground } from '@bundoc/shared/testing/timing';
import { describe, expect, it } from 'vitest';
import type { DefinedStore } from '../src/collections/defined-store.ts';
import { ORDER_SIZES } from '../src/engine/postgres/indexes/runs-worker.ts';
import type { PostgresProject } from '../src/testing/postgres-project.ts';
import { commitOne, put } from '../src/testing/writes.ts';
import { ask } from './support/ordered-queries.ts';
import { close, NONE, newProject, openOn, settled, usePostgresIndexes } from './support/postgres-indexes.ts';

const DOCUMENTS = runs(4_000, 1_000_000);
/** One document of so many is written again and again; the others stay. */
const MOVING_EVERY = 100;
const OWNERS = 50;
const BATCH = 500;
const WRITE_EVERY_MS = 5;
/** Several runs and merges also in the short form. */
const SIZES = LONG
  ? ORDER_SIZES
  : {
      ...ORDER_SIZES,
      buildDocuments: 100,
      segmentEntries: 700,
      tailChanges: 30,
      tailChangesMax: 60,
      commitsUnseenMax: 500,
    };

interface Body {
  readonly n: number;
  readonly owner: number;
}

const isMoving = (at: number) => at % MOVING_EVERY === 0;
/** Each has another number, in no order. */
const bodyOf = (at: number): Body => ({ n: (at * 7_919) % DOCUMENTS, owner: at % OWNERS });

async function fill(store: DefinedStore): Promise<void> {
  let at = 0;
  const worker = async () => {
    while (at < DOCUMENTS) {
      const from = at;
      at += BATCH;
      await store.commit(
        Array.from({ length: BATCH }, (_, place) =>
          put(`d${from + place}`, JSON.stringify(bodyOf(from + place))),
        ),
      );
    }
  };
  await Promise.all([worker(), worker(), worker()]);
}

/** Gives moving documents other numbers, one after another. */
class Writer {
  readonly #store: DefinedStore;
  readonly values = new Map<string, Set<number>>();
  #latencies: number[] = [];
  #isOver = false;
  readonly #done: Promise<void>;

  constructor(store: DefinedStore) {
    this.#store = store;
    this.#done = startInBackground(this.#run());
  }

  /** Latencies since the last call. */
  take(): string {
    const sorted = this.#latencies.splice(0).toSorted((a, b) => a - b);
    const at = (share: number) => sorted[Math.floor(sorted.length * share)]?.toFixed(1);
    return `${sorted.length} writes, p50 ${at(0.5)} ms, p99 ${at(0.99)} ms`;
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#done;
  }

  async #run(): Promise<void> {
    for (let round = 1; !this.#isOver; round++) {
      const begun = performance.now();
      const at = ((round * 31) % (DOCUMENTS / MOVING_EVERY)) * MOVING_EVERY;
      const { owner } = bodyOf(at);
      const n = (round * 104_729) % DOCUMENTS;
      const known = this.values.get(`d${at}`) ?? new Set([bodyOf(at).n]);
      this.values.set(`d${at}`, known.add(n));
      await commitOne(this.#store, put(`d${at}`, JSON.stringify({ n, owner })));
      const ms = performance.now() - begun;
      this.#latencies.push(ms);
      await sleep(Math.max(0, WRITE_EVERY_MS - ms));
    }
  }
}

describe('ordered indexes of a large collection on PostgreSQL', needs('postgresql'), () => {
  usePostgresIndexes();

  const say = (text: string) => process.stdout.write(`${DOCUMENTS} documents: ${text}\n`);
  const timed = async (what: string, action: () => Promise<unknown>) => {
    const begun = performance.now();
    await action();
    say(`${what} took ${((performance.now() - begun) / 1_000).toFixed(1)} s`);
  };

  /** Reads all pages and compares them with the documents that stay and the values of those that move. */
  const isRight = async (
    store: DefinedStore,
    project: PostgresProject,
    writer: Writer,
    direction: 'asc' | 'desc',
    owner?: number,
  ) => {
    const where = owner === undefined ? '{"n":{"$gte":0}}' : JSON.stringify({ owner });
    const orderBy = [{ field: 'n', direction }];
    const answer = await ask(store, project, { where, orderBy, limit: 1_000 });
    const index = owner === undefined ? 'n' : 'owner+n';
    expect(answer).toMatchObject({ index, isOrdered: true, unreadable: [] });
    const { ids = [], texts = [] } = answer ?? {};
    const stayed = new Set<string>();
    let wrong = 0;
    let last: number | undefined;
    for (const [at, id] of ids.entries()) {
      const found = JSON.parse(String(texts[at])) as Body;
      const number = Number(id.slice(1));
      const step = found.n - (last ?? found.n);
      if (direction === 'asc' ? step < 0 : step > 0) wrong++;
      last = found.n;
      if (owner !== undefined && found.owner !== owner) wrong++;
      if (isMoving(number)) {
        if (!(writer.values.get(id)?.has(found.n) ?? found.n === bodyOf(number).n)) wrong++;
      } else if (stayed.has(id) || found.n !== bodyOf(number).n) wrong++;
      else stayed.add(id);
    }
    expect(wrong).toBe(0);
    const all = Array.from({ length: DOCUMENTS }, (_, at) => at);
    const expected = all.filter(
      (at) => !isMoving(at) && (owner === undefined || bodyOf(at).owner === owner),
    ).length;
    expect(stayed.size).toBe(expected);
  };

  it('are built while it is written, and every page to the end is right meanwhile', async () => {
    const project = await newProject({ orderSizes: SIZES });
    const store = await openOn(project);
    await timed('filling', () => fill(store));
    const writer = new Writer(store);
    await sleep(runs(200, 10_000));
    say(`before the build: ${writer.take()}`);
    const indexes = [['n'], ['owner', 'n']].map((fields) => ({ fields, unique: false }));
    await timed('building two indexes', async () => {
      await store.define('notes', { indexes }, NONE);
      await settled(store, runs(60_000, 1_200_000));
    });
    say(`during the build: ${writer.take()}`);
    const other = await openOn(project);
    await timed('reading all pages', () => isRight(other, project, writer, 'asc'));
    await timed('reading all pages of one owner backwards', () =>
      isRight(other, project, writer, 'desc', OWNERS - 1),
    );
    await timed('reading all pages backwards', () => isRight(store, project, writer, 'desc'));
    say(`during the reads: ${writer.take()}`);
    await writer.stop();
    await close(store, other);
  });
});
