import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { DefinedStore } from '../src/collections/defined-store.ts';
import type { Database } from '../src/engine/postgres/database/database.ts';
import { openTestDatabase, type PostgresProject } from '../src/testing/postgres-project.ts';
import { commitOne, put, ref } from '../src/testing/writes.ts';
import { type Ran, watchedDatabase } from './support/counted-database.ts';
import { type Asked, ask } from './support/ordered-queries.ts';
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

const MIB = 1_048_576;
/** Kinds of rows of the statement that reads an answer. */
const CHANGED = 1;
const DOCUMENT = 2;
/** Bytes of changed documents' keys that one statement reads. */
const CHANGES_BYTES_MAX = 4 * MIB;

describe('ordered indexes on PostgreSQL', needs('postgresql'), () => {
  usePostgresIndexes();
  const ran: Ran[] = [];
  let own: Database;
  let watched: Database;
  beforeAll(() => {
    own = openTestDatabase(server.urlOf('bundoc'), { statementTimeoutMs: 60_000 });
    watched = watchedDatabase(own, (one) => ran.push(one));
  });
  afterAll(() => own[Symbol.asyncDispose]());

  const opened = async (...fields: string[]): Promise<readonly [PostgresProject, DefinedStore]> => {
    const project = await newProject();
    const store = await openOn(project, watched);
    await store.define('notes', { indexes: fields.map((one) => ({ fields: [one], unique: false })) }, NONE);
    await settled(store);
    return [project, store];
  };
  /** What an answer was read by, and its statements' rows of a kind: their bytes, by statement. */
  const asked = async (store: DefinedStore, project: PostgresProject, question: Asked) => {
    ran.length = 0;
    const answer = await ask(store, project, question);
    const reads = ran.filter(({ name }) => name.startsWith('bundoc-read-ordered'));
    const bytesOf = (kind: number) =>
      reads.map(({ rows }) =>
        rows.filter((row) => row[5] === kind).map((row) => (row[15] as Buffer | null)?.length ?? 0),
      );
    return { answer, reads, statements: ran.length, bytesOf };
  };
  const sum = (list: readonly number[]) => list.reduce((all, one) => all + one, 0);

  it('find documents with up to 1,000 keys by them, and those with more by reading them', async () => {
    const [project, store] = await opened('n', 'other');
    const list = (count: number, from: number) =>
      JSON.stringify({ n: Array.from({ length: count }, (_, at) => from + at) });
    await commitOne(store, put('most', list(999, 10_000)));
    await commitOne(store, put('more', list(1_001, 20_000)));
    await commitOne(store, put('one', '{"n":20500,"other":1}'));
    for (let round = 0; round < 2; round++) {
      const of = async (where: string) => (await asked(store, project, { where })).answer;
      expect(await of('{"n":{"$gte":10998,"$lte":10998}}')).toMatchObject({ ids: ['most'], index: 'n' });
      expect(await of('{"n":{"$gte":20500,"$lt":20501}}')).toMatchObject({
        ids: ['more', 'one'],
        index: 'n',
      });
      expect(await of('{"n":{"$lt":10000}}')).toMatchObject({ ids: [], index: 'n' });
      expect(await of('{"other":{"$gte":0}}')).toMatchObject({ ids: ['one'], index: 'other' });
      // From the tail, and from runs.
      for (let at = 0; at < 5 && round === 0; at++)
        await store.commit(Array.from({ length: 999 }, (_, n) => put(`d${at}-${n}`, '{"n":-1,"other":-1}')));
      if (round === 0)
        await store.commit(
          Array.from({ length: 999 }, (_, n) => ({
            kind: 'delete' as const,
            ref: ref(`d0-${n}`),
            precondition: NONE,
          })),
        );
      await settled(store);
      if (round === 0)
        for (let at = 1; at < 5; at++)
          await store.commit(
            Array.from({ length: 999 }, (_, n) => ({
              kind: 'delete' as const,
              ref: ref(`d${at}-${n}`),
              precondition: NONE,
            })),
          );
    }
    await close(store);
  });

  it('read a tail of large keys in parts, each of bounded size', async () => {
    const [project, store] = await opened('n');
    // Almost 64 KiB of keys each, and one that has more.
    const text = (at: number, count: number) =>
      JSON.stringify({ n: Array.from({ length: count }, (_, n) => `${at}-${n}-`.padEnd(500, 'x')) });
    for (let at = 0; at < 90; at += 10)
      await store.commit(Array.from({ length: 10 }, (_, n) => put(`d${at + n}`, text(at + n, 125))));
    await commitOne(store, put('most', text(90, 200)));
    const reader = await openOn(project, watched);
    const { answer, bytesOf } = await asked(reader, project, { where: '{"n":{"$beginsWith":"7-3-"}}' });
    expect(answer).toMatchObject({ ids: ['d7'], index: 'n' });
    const parts = bytesOf(CHANGED);
    expect(parts.filter((part) => part.length > 0).length).toBeGreaterThan(1);
    for (const part of parts) expect(sum(part)).toBeLessThanOrEqual(CHANGES_BYTES_MAX);
    expect(Math.max(...parts.flat())).toBeLessThanOrEqual(65_536 + 100);
    // A tail of more than a mebibyte becomes a run.
    await reader.load();
    await reader.indexes?.built();
    const merged = await asked(reader, project, { where: '{"n":{"$beginsWith":"90-199-"}}' });
    expect(merged.answer).toMatchObject({ ids: ['most'], index: 'n' });
    expect(await sql(`SELECT pages > 500 FROM bundoc.indexes WHERE project = '${project.project}'`)).toBe(
      't',
    );
    await close(store, reader);
  });

  it('read documents of several MiB one by one, and small ones beside them together', async () => {
    const [project, store] = await opened('n');
    const sizes = [3 * MIB, 10, 10, 2 * MIB, 10, 5 * MIB, 10, 10, MIB, 3 * MIB, 10, 10];
    for (const [n, size] of sizes.entries())
      await commitOne(store, put(`d${n}`, JSON.stringify({ n, pad: 'x'.repeat(size) })));
    for (const direction of ['asc', 'desc'] as const) {
      const orderBy = [{ field: 'n', direction }];
      const { answer, reads, bytesOf } = await asked(store, project, {
        where: '{"n":{"$gte":0}}',
        orderBy,
        bytesMax: 4 * MIB,
      });
      const ids = sizes.map((_, n) => `d${n}`);
      expect(answer).toMatchObject({ ids: direction === 'asc' ? ids : ids.reverse(), isOrdered: true });
      for (const [at, read] of bytesOf(DOCUMENT).entries()) {
        const bytesMax = reads[at]?.values[7] as number;
        expect(sum(read)).toBeLessThanOrEqual(Math.max(bytesMax, ...read));
      }
      // Each of the five large ones is read at most twice, once for each page that wants it.
      expect(
        bytesOf(DOCUMENT)
          .flat()
          .filter((size) => size >= MIB).length,
      ).toBeLessThanOrEqual(10);
    }
    await close(store);
  });

  it('find a thousand values with a bounded number of statements', async () => {
    const [project, store] = await opened('n');
    for (let at = 0; at < 6_000; at += 1_000)
      await store.commit(
        Array.from({ length: 1_000 }, (_, n) =>
          put(`d${at + n}`, `{"n":"${String(at + n).padEnd(400, 'x')}"}`),
        ),
      );
    await settled(store);
    expect(await sql(`SELECT pages > 200 FROM bundoc.indexes WHERE project = '${project.project}'`)).toBe(
      't',
    );
    const values = (step: number, pad: string) =>
      JSON.stringify({
        n: { $in: Array.from({ length: 1_000 }, (_, at) => String(at * step).padEnd(400, pad)) },
      });
    for (const [where, found] of [
      [values(6, 'x'), 1_000],
      [values(6, 'y'), 0],
    ] as const) {
      const reader = await openOn(project, watched);
      const { answer, statements } = await asked(reader, project, { where, limit: 1_000 });
      expect(answer?.ids).toHaveLength(found);
      expect(answer?.index).toBe('n');
      expect(statements).toBeLessThanOrEqual(50);
      const again = await asked(reader, project, { where, limit: 1_000 });
      expect(again.statements).toBeLessThanOrEqual(15);
      await close(reader);
    }
    await close(store);
  });

  it('look at no later changes of other collections, once their runs are as of those', async () => {
    const [project, store] = await opened('n');
    await store.commit(Array.from({ length: 20 }, (_, n) => put(`d${n}`, `{"n":${n}}`)));
    await settled(store);
    const p = `project = '${project.project}'`;
    // As 100,000 commits to another collection would leave them.
    await sql(`
      INSERT INTO bundoc.documents (project, name, collection, seq, created_seq, deleted_ms, key_version, rev, state, sealed)
      SELECT d.project, decode(lpad(to_hex(n), 32, '0'), 'hex'), decode(repeat('ab', 16), 'hex'), h.seq + n, h.seq + n, 0, 1, rev, state, sealed
      FROM bundoc.heads AS h, generate_series(1, 100000) AS n, (SELECT * FROM bundoc.documents WHERE ${p} AND deleted_ms = 0 LIMIT 1) AS d
      WHERE h.${p};
      UPDATE bundoc.heads SET seq = seq + 100000 WHERE ${p}`);
    const where = '{"n":{"$gte":10}}';
    expect((await asked(store, project, { where })).answer?.ids).toHaveLength(10);
    await commitOne(store, put('d0', '{"n":30}'));
    await settled(store);
    const behind = await sql(
      `SELECT h.seq - i.as_of FROM bundoc.heads AS h JOIN bundoc.indexes AS i USING (project) WHERE h.${p}`,
    );
    expect(Number(behind)).toBeLessThan(10);
    const reader = await openOn(project, watched);
    const { answer, reads } = await asked(reader, project, {
      where,
      orderBy: [{ field: 'n', direction: 'desc' }],
    });
    expect(answer?.ids).toEqual(['d0', ...Array.from({ length: 10 }, (_, n) => `d${19 - n}`)]);
    expect(reads.length).toBeLessThanOrEqual(4);
    await close(store, reader);
  });
});
