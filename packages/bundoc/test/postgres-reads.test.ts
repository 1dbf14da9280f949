import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { describeWithPostgres } from '@bundoc/shared/testing/postgres-tests';
import { expect, it } from 'vitest';
import { commitOne, put, ref } from '../src/storage/conformance.ts';
import { COMMIT_BYTES_MAX } from '../src/storage/port.ts';
import type { Row } from '../src/storage/postgres/database.ts';
import { migrate } from '../src/storage/postgres/migrate.ts';
import { READ_BYTES_MAX } from '../src/storage/postgres/shared-reads.ts';
import { openTestDatabase, PostgresProject } from '../src/testing/postgres-project.ts';

const bytesOf = (rows: readonly Row[]) =>
  rows.flat().reduce<number>((sum, value) => sum + (Buffer.isBuffer(value) ? value.length : 0), 0);

describeWithPostgres('reads of single documents in PostgreSQL', () => {
  it('share queries of bounded size, whatever their documents are, and tell the absent from those that had no room', async () => {
    await using server = await PostgresServer.start();
    await using database = openTestDatabase((await server.createDatabase('bundoc')).url);
    await migrate(database);
    const project = new PostgresProject('p');
    await project.create(database);
    await using store = await project.open(database);
    const contentOf = (n: number, bytes: number) => `{"n":${n},"text":"${'x'.repeat(bytes)}"}`;
    const sizes = [1_500_000, 100, READ_BYTES_MAX + 1, 1_500_000, 1_500_000, 1_500_000, 200];
    for (const [n, bytes] of sizes.entries()) await commitOne(store, put(`d${n}`, contentOf(n, bytes)));

    const query = database.query.bind(database);
    const answers: (readonly Row[])[] = [];
    database.query = async (...args) => {
      const rows = await query(...args);
      answers.push(rows);
      return rows;
    };
    const asked = [...sizes.keys()].flatMap((n) => [`d${n}`, `none-${n}`]);
    const read = await Promise.all(asked.map((id) => store.get(ref(id))));
    for (const [at, id] of asked.entries()) {
      const document = read[at];
      if (id.startsWith('none')) expect(document).toBeUndefined();
      else expect(document?.metadata._id).toBe(id);
    }
    expect(answers.length).toBeGreaterThan(1);
    const slack = 10_000;
    for (const rows of answers) {
      const whole = rows.filter((row) => row[3] !== null);
      expect(bytesOf(whole) <= READ_BYTES_MAX + slack || whole.length === 1).toBe(true);
    }
    // Small documents still share one trip.
    answers.length = 0;
    await Promise.all(['d1', 'd6', 'none'].map((id) => store.get(ref(id))));
    // Both documents in one, and whether the project is there in another, for the one that is not.
    expect(answers.map((rows) => rows.length)).toEqual([2, 1]);
  });

  it.each([
    ['no bytes', 'sealed = NULL'],
    ['more bytes than any document', `sealed = decode(repeat('00', ${COMMIT_BYTES_MAX + 1}), 'hex')`],
    ['no revision', 'rev = NULL'],
    ['a huge revision', "rev = decode(repeat('00', 20000000), 'hex')"],
    ['a huge state', "state = decode(repeat('00', 20000000), 'hex')"],
  ])('end, and bring nothing huge, where somebody has left a row with %s', async (_what, edit) => {
    await using server = await PostgresServer.start();
    await using database = openTestDatabase((await server.createDatabase('bundoc')).url);
    await migrate(database);
    const project = new PostgresProject('p');
    await project.create(database);
    await using store = await project.open(database);
    for (const id of ['a', 'b', 'c']) await commitOne(store, put(id, '{}'));
    await server.sql(
      `ALTER TABLE bundoc.documents ALTER COLUMN rev DROP NOT NULL; UPDATE bundoc.documents SET ${edit} WHERE seq <> 2`,
      'bundoc',
    );
    const query = database.query.bind(database);
    database.query = async (...args) => {
      const rows = await query(...args);
      expect(bytesOf(rows)).toBeLessThan(100_000);
      return rows;
    };
    const reads = await Promise.allSettled(['a', 'b', 'c'].map((id) => store.get(ref(id))));
    const isState = edit.startsWith('state');
    for (const [at, read] of reads.entries())
      if (at === 1 || isState) expect(read.status).toBe('fulfilled');
      else expect(read).toMatchObject({ reason: { code: 'integrity_error' } });
    if (!isState) await expect(store.get(ref('a'))).rejects.toMatchObject({ code: 'integrity_error' });
    const listed: string[] = [];
    for (let after: number | undefined = 0; after !== undefined; ) {
      const page = await store.list({ collection: 'notes', after, limit: 100, bytesMax: 1_000_000 });
      listed.push(...page.documents.map(({ metadata }) => metadata._id));
      after = page.next;
    }
    expect(listed).toEqual(['b']);
    const changes = store.sealedChanges(0, { limit: 100, bytesMax: 1_000_000 });
    await expect(changes).rejects.toMatchObject({ code: 'integrity_error' });
  });

  it('look each up by its name, also when the planner knows nothing of a project that has grown', async () => {
    await using server = await PostgresServer.start({ settings: { autovacuum: 'off' } });
    await using database = openTestDatabase((await server.createDatabase('bundoc')).url);
    await migrate(database);
    const project = new PostgresProject('p');
    await project.create(database);
    await using store = await project.open(database);
    for (let at = 0; at < 2_000; at += 500)
      await store.commit(Array.from({ length: 500 }, (_, n) => put(`d${at + n}`, '{}')));

    const asked: string[] = [];
    const query = database.query.bind(database);
    database.query = (statement, values) => {
      asked.push(planOf(statement.text, values));
      return query(statement, values);
    };
    const transaction = database.transaction.bind(database);
    database.transaction = (begin, action) => {
      if (typeof begin !== 'string')
        asked.push(...begin.map(({ statement, values }) => planOf(statement.text, values)));
      return transaction(begin, action);
    };
    await store.get(ref('d1'));
    await Promise.all(['d1', 'd2', 'd3'].map((id) => store.get(ref(id))));
    await store.commit(Array.from({ length: 200 }, (_, n) => put(`d${n}`, '{}')));

    const plans = await Promise.all(asked.map((text) => server.sql(text, 'bundoc')));
    const ofDocuments = plans.filter((plan) => plan.includes('documents'));
    expect(ofDocuments).toHaveLength(3);
    for (const plan of ofDocuments) {
      expect(plan).toMatch(/Index Scan using documents_pkey .*\n\s+Index Cond: \(.*project.* AND .*name = /);
      expect(plan).not.toMatch(/Seq Scan|Bitmap|documents_by/);
    }
  });
});

/** What asks for the plan of a prepared statement. */
function planOf(text: string, values: readonly unknown[]): string {
  const literals = values.map((value) => {
    if (Buffer.isBuffer(value)) return `'\\x${value.toString('hex')}'`;
    if (!Array.isArray(value)) return `'${value}'`;
    return `'{${value.map((one: Buffer) => `"\\\\x${one.toString('hex')}"`).join()}}'`;
  });
  return `PREPARE asked AS ${text}; EXPLAIN EXECUTE asked (${literals.join()})`;
}
