import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import { find } from '../src/engine/indexes/conformance.ts';
import { positionAt } from '../src/engine/port/positions.ts';
import type { Database, Transaction } from '../src/engine/postgres/database/database.ts';
import { skipPositions } from '../src/engine/postgres/rows/skip-positions.ts';
import { commitOne, put, ref, remove } from '../src/testing/writes.ts';
import {
  close,
  database,
  findings,
  NONE,
  newProject,
  openOn,
  plain,
  settled,
  sql,
  unique,
  usePostgresIndexes,
} from './support/postgres-indexes.ts';

describe('indexes on PostgreSQL', needs('postgresql'), () => {
  usePostgresIndexes();

  it('limit the entries that one transaction and one commit write', async () => {
    const project = await newProject();
    const store = await openOn(project);
    await store.define('notes', { indexes: [plain('g')] }, NONE);
    await settled(store);
    const many = (n: number) => `{"g":[${Array.from({ length: 990 }, (_, at) => n * 1_000 + at).join(',')}]}`;
    await Promise.all(Array.from({ length: 15 }, (_, n) => commitOne(store, put(`d${n}`, many(n)))));
    expect(await find(store, '{"g":14005}')).toMatchObject({ ids: ['d14'], scanned: 1 });
    const writes = Array.from({ length: 55 }, (_, n) => put(`e${n}`, many(n)));
    await expect(store.commit(writes)).rejects.toMatchObject({ code: 'payload_too_large' });
    expect(await store.get(ref('e0'))).toBeUndefined();
    expect(await findings(project)).toEqual([]);
    await close(store);
  });

  it('stay as they are over a take-over, after which the project continues at a later position', async () => {
    const project = await newProject();
    const store = await openOn(project);
    await store.define('notes', { indexes: [plain('g')] }, NONE);
    await settled(store);
    await commitOne(store, put('a', '{"g":1}'));
    await skipPositions(database, positionAt(1_000));
    await commitOne(store, put('b', '{"g":1}'));
    expect(await store.position()).toBe(positionAt(1_000) + 1);
    expect(await find(store, '{"g":1}')).toMatchObject({ ids: ['a', 'b'], scanned: 2 });
    expect(await findings(project)).toEqual([]);
    await close(store);
  });

  it('separate new entries from old ones in bounded memory, without a scan of all for each', async () => {
    const project = await newProject();
    const plans: string[] = [];
    const explaining = {
      query: database.query.bind(database),
      run: database.run.bind(database),
      transaction: (begin, action) =>
        database.transaction(begin, async (transaction, begun) => {
          await transaction.run("SET LOCAL work_mem = '64kB'");
          const last: Transaction['last'] = async (statement, values) => {
            const explain = { name: `explain-${statement.name}`, text: `EXPLAIN ${statement.text}` };
            plans.push((await transaction.query(explain, values)).join('\n'));
            await transaction.last(statement, values);
          };
          return action({ ...transaction, last }, begun);
        }),
    } satisfies Pick<Database, 'query' | 'run' | 'transaction'>;
    const store = await openOn(project, explaining as unknown as Database);
    await store.define('notes', { indexes: [unique('g')] }, NONE);
    const many = (from: number) => `{"g":[${Array.from({ length: 990 }, (_, at) => from + at).join(',')}]}`;
    for (const round of [0, 500])
      await store.commit([0, 1, 2].map((n) => put(`d${n}`, many(n * 2_000 + round))));
    expect(plans.at(-1)).toContain('index_tokens_by_document');
    expect(plans.at(-1)).not.toContain('(SubPlan');
    expect(await findings(project)).toEqual([]);
    await close(store);
  });

  it('have a bounded number of entries removed by one transaction, however many documents expire or are deleted', async () => {
    const project = await newProject();
    const store = await openOn(project);
    const ttl = { field: 'until', seconds: 0 };
    await store.define('notes', { indexes: [unique('g')], ttl }, NONE);
    const many = (at: number) => Array.from({ length: 990 }, (_, n) => at * 1_000 + n).join(',');
    const document = (at: number, until: string) => put(`d${at}`, `{"g":[${many(at)}],"until":"${until}"}`);
    const [places, long, over] = [
      Array.from({ length: 60 }, (_, at) => at),
      '2999-01-01T00:00:00Z',
      '2000-01-01T00:00:00Z',
    ];
    for (const from of [0, 10, 20, 30, 40, 50])
      await store.commit(places.slice(from, from + 10).map((at) => document(at, long)));
    const tooMany = { code: 'payload_too_large' };
    await expect(store.commit(places.map((at) => remove(`d${at}`)))).rejects.toMatchObject(tooMany);
    await expect(store.commit(places.map((at) => put(`d${at}`, '{}')))).rejects.toMatchObject(tooMany);
    expect(await store.get(ref('d59'))).toBeDefined();

    for (const from of [0, 10, 20, 30, 40, 50])
      await store.commit(places.slice(from, from + 10).map((at) => document(at, over)));
    expect(await store.expired.sweepRound()).toBe(places.length);
    const entries = `SELECT count(*) FROM bundoc.index_tokens WHERE project = '${project.project}'`;
    expect(await sql(entries)).toBe('0');

    // Concurrent commits are put into as many transactions as they need.
    for (const from of [0, 10, 20, 30, 40, 50])
      await store.commit(places.slice(from, from + 10).map((at) => document(at, long)));
    let transactions = 0;
    const counting = {
      query: (...args) => database.query(...args),
      run: (text) => database.run(text),
      transaction: (begin, action) => {
        transactions++;
        return database.transaction(begin, action);
      },
    } satisfies Pick<Database, 'query' | 'run' | 'transaction'>;
    const node = await openOn(project, counting as unknown as Database);
    const before = transactions;
    await Promise.all(places.map((at) => commitOne(node, remove(`d${at}`))));
    expect(transactions - before, 'without a bound: one').toBeGreaterThan(1);
    expect(await sql(entries)).toBe('0');
    expect(await findings(project)).toEqual([]);
    await close(store, node);
  });
});
