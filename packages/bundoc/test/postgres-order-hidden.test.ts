import { runs } from '@bundoc/shared/testing/long';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { DefinedStore } from '../src/collections/defined-store.ts';
import type { Database } from '../src/engine/postgres/database/database.ts';
import { openTestDatabase, type PostgresProject } from '../src/testing/postgres-project.ts';
import { put } from '../src/testing/writes.ts';
import { type Ran, watchedDatabase } from './support/counted-database.ts';
import { ask } from './support/ordered-queries.ts';
import {
  close,
  NONE,
  newProject,
  openOn,
  server,
  settled,
  sql,
  usePostgresIndexes,
} from './support/postgres-indexes.ts';

const DOCUMENTS = 1_200;
const PROJECTS = runs(4, 40);
/** Many pages for few documents: each value is long. */
const PAD = 'x'.repeat(300);
/** Runs of a build, of tails, and merges. */
const SIZES = {
  buildDocuments: 500,
  segmentEntries: 400,
  segmentUnits: 8_388_608,
  tailChanges: 100,
  tailBytes: 1_048_576,
  tailChangesMax: 300,
  commitsUnseenMax: 10_000,
};

const textOf = (rank: number) => JSON.stringify({ v: `${String(rank).padStart(6, '0')}${PAD}` });

/** The rank correlation of two lists of the same length, each without ties. */
function correlation(a: readonly number[], b: readonly number[]): number {
  const ranks = (list: readonly number[]) => {
    const ranked = new Map(list.toSorted((x, y) => x - y).map((value, rank) => [value, rank]));
    return list.map((value) => ranked.get(value) as number);
  };
  const [x, y] = [ranks(a), ranks(b)];
  const n = x.length;
  const squares = x.reduce((sum, rank, at) => sum + (rank - (y[at] as number)) ** 2, 0);
  return 1 - (6 * squares) / (n * (n * n - 1));
}

/**
 * Who reads the database or the log of its statements sees: how many documents, pages, runs and changes there
 * are, and when they came; the sizes of keys, padded to 32 bytes; which pages and which documents an answer
 * reads together, and so, from many answers of few documents, which of them are near each other. Nobody sees
 * which of two documents has the larger value, nor which of two pages.
 */
describe('ordered indexes on PostgreSQL', needs('postgresql'), () => {
  usePostgresIndexes();
  const ran: Ran[] = [];
  let log: Database;
  let own: Database;
  beforeAll(() => {
    own = openTestDatabase(server.urlOf('bundoc'));
    log = watchedDatabase(own, (one) => ran.push(one));
  });
  afterAll(() => own[Symbol.asyncDispose]());

  /** A collection that was built, changed and merged. @param rankOf the rank of a document's value. */
  const filled = async (rankOf: (n: number) => number): Promise<readonly [PostgresProject, DefinedStore]> => {
    const project = await newProject({ orderSizes: SIZES });
    const store = await openOn(project, log);
    const write = async (from: number, count: number) => {
      for (let at = from; at < from + count; at += 100)
        await store.commit(Array.from({ length: 100 }, (_, n) => put(`d${at + n}`, textOf(rankOf(at + n)))));
    };
    await write(0, 800);
    await store.define('notes', { indexes: [{ fields: ['v'], unique: false }] }, NONE);
    await settled(store);
    for (let from = 800; from < DOCUMENTS; from += 200) {
      await write(from, 200);
      await settled(store);
    }
    return [project, store];
  };

  /** Pages in the order of their values, as an answer in order meets them. Only the key shows it. */
  const pagesInOrder = async (project: PostgresProject, direction: 'asc' | 'desc') => {
    const reader = await openOn(project, log);
    ran.length = 0;
    const seen: number[] = [];
    const answer = await ask(reader, project, {
      where: '{"v":{"$gte":""}}',
      orderBy: [{ field: 'v', direction }],
      limit: 5,
    });
    expect(answer?.ids).toHaveLength(DOCUMENTS);
    expect(answer?.isOrdered).toBe(true);
    for (const { name, rows } of ran)
      if (name.startsWith('bundoc-read-ordered'))
        for (const row of rows)
          if (row[5] === 3 && !seen.includes(row[8] as number)) seen.push(row[8] as number);
    await close(reader);
    return seen;
  };

  it('show no order of values by the rows of their pages: ids, or places in the table', async () => {
    const found = { ids: [] as number[], places: [] as number[] };
    for (let at = 0; at < PROJECTS; at++) {
      const [project, store] = await filled(at % 2 === 0 ? (n) => n : (n) => DOCUMENTS - n);
      const inOrder = await pagesInOrder(project, 'asc');
      expect(inOrder.length).toBeGreaterThan(40);
      const text = await sql(
        `SELECT id, row_number() OVER (ORDER BY ctid) FROM bundoc.index_pages WHERE project = '${project.project}'`,
      );
      const placeOf = new Map(
        text.split('\n').map((line) => line.split('|').map(Number) as [number, number]),
      );
      const ranks = inOrder.map((_, rank) => rank);
      found.ids.push(correlation(ranks, inOrder));
      found.places.push(
        correlation(
          ranks,
          inOrder.map((id) => placeOf.get(id) as number),
        ),
      );
      await close(store);
    }
    // The standard deviation of one by chance is about 0.15 for 45 pages.
    for (const of of [found.ids, found.places]) {
      const mean = of.reduce((sum, one) => sum + one, 0) / of.length;
      expect(Math.abs(mean), JSON.stringify(found)).toBeLessThan(0.3);
    }
  });

  it('tell collections with reversed values apart by no size and no number in a dump', async () => {
    const shapes: string[] = [];
    for (const rankOf of [(n: number) => n, (n: number) => DOCUMENTS - n]) {
      const [project, store] = await filled(rankOf);
      const p = `project = '${project.project}'`;
      shapes.push(
        await sql(`
          SELECT string_agg(format('%s %s %s', created_seq, octet_length(keys), octet_length(sealed)), ',' ORDER BY created_seq) FROM bundoc.documents WHERE ${p};
          SELECT as_of, pages, octet_length(runs) FROM bundoc.indexes WHERE ${p};
          SELECT min(octet_length(sealed)), max(octet_length(sealed)) FROM bundoc.index_pages WHERE ${p};
          SELECT count(*) FROM bundoc.index_runs WHERE ${p} AND left_at IS NULL`),
      );
      await close(store);
    }
    expect(shapes[1]).toBe(shapes[0]);
  });

  it('send the places of documents and the ids of pages in an order that tells nothing of their values', async () => {
    const [project, store] = await filled((n) => (n * 7_919) % DOCUMENTS);
    const reader = await openOn(project, log);
    ran.length = 0;
    for (const direction of ['asc', 'desc'] as const)
      await ask(reader, project, {
        where: '{"v":{"$gte":""}}',
        orderBy: [{ field: 'v', direction }],
        limit: 150,
      });
    const lists = ran
      .filter(({ name }) => name.startsWith('bundoc-read-ordered') || name.startsWith('bundoc-index-pages'))
      .flatMap(
        ({ values }) => values.filter((value) => Array.isArray(value) && value.length > 2) as number[][],
      );
    expect(lists.length).toBeGreaterThan(10);
    for (const list of lists) expect(list).toEqual(list.toSorted((a, b) => a - b));
    await close(reader, store);
  });
});
