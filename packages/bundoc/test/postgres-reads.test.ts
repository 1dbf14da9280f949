import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { describeWithPostgres } from '@bundoc/shared/testing/postgres-tests';
import { expect, it } from 'vitest';
import { commitOne, put, ref } from '../src/storage/conformance.ts';
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
});
