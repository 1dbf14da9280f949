import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { COMMIT_BYTES_MAX } from '../src/engine/port/port.ts';
import type { Database, DatabaseOptions, Row } from '../src/engine/postgres/database/database.ts';
import { prepareSchema } from '../src/engine/postgres/database/schema.ts';
import type { PostgresStore } from '../src/engine/postgres/postgres-store.ts';
import { LARGE_BYTES_MAX } from '../src/engine/postgres/reads/large-reads.ts';
import { INLINE_BYTES_MAX, SharedReads } from '../src/engine/postgres/reads/shared-reads.ts';
import { NO_NEWS, openTestDatabase, PostgresProject } from '../src/testing/postgres-project.ts';
import { commitOne, put, ref } from '../src/testing/writes.ts';

const bytesOf = (rows: readonly Row[]) =>
  rows.flat().reduce<number>((sum, value) => sum + (Buffer.isBuffer(value) ? value.length : 0), 0);

const documentsOf = ({ values }: { readonly values: readonly unknown[] }) => (values[1] as unknown[]).length;

const stackOf = (stores: readonly AsyncDisposable[]) => {
  const stack = new AsyncDisposableStack();
  for (const store of stores) stack.use(store);
  return stack;
};

const SMALL_PROJECTS = `
  INSERT INTO bundoc.documents
  SELECT 'small-' || n, substr(sha256(n::text::bytea), 1, 16), substr(sha256(n::text::bytea), 17), 1, 1, 0, 1,
    '\\x000102030405060708090a0b', sha256('state'), sha256('sealed') FROM generate_series(1, 10000) AS n;
  INSERT INTO bundoc.used_keys
  SELECT 'small-' || n, substr(sha256(n::text::bytea), 1, 16), 1, 1, sha256('answer') FROM generate_series(1, 10000) AS n`;

describe('reads of single documents in PostgreSQL', needs('postgresql'), () => {
  let server: PostgresServer;
  let made = 0;
  beforeAll(async () => {
    // The planner knows what a test lets it know.
    server = await PostgresServer.start({ settings: { autovacuum: 'off' } });
  });
  afterAll(() => server?.[Symbol.asyncDispose]());

  /** The database of the running test, which {@link newDatabase} makes. */
  let databaseName: string;
  const newDatabase = async (options: Partial<DatabaseOptions> = {}) => {
    databaseName = `reads_${made++}`;
    const database = openTestDatabase((await server.createDatabase(databaseName)).url, options);
    await prepareSchema(database);
    return database;
  };
  const sql = (text: string) => server.sql(text, databaseName);

  const readsOf = async (database: Database, ...ids: readonly string[]) => {
    const reads = new SharedReads(database);
    return Promise.all(
      ids.map(async (id) => {
        const project = new PostgresProject(id);
        await project.create(database);
        return project.open(database, NO_NEWS, { reads });
      }),
    );
  };
  /** Records the statements, and lets a test block them. */
  const watch = (
    database: Database,
    before: (values: readonly unknown[]) => Promise<void> = async () => undefined,
  ) => {
    const query = database.query.bind(database);
    const asked: { readonly values: readonly unknown[]; rows: readonly Row[] }[] = [];
    database.query = async (statement, values) => {
      const one = { values, rows: [] as readonly Row[] };
      asked.push(one);
      await before(values);
      one.rows = await query(statement, values);
      return one.rows;
    };
    return asked;
  };

  it('share statements of bounded size for any documents, and distinguish absent documents from those without space', async () => {
    await using database = await newDatabase();
    const [store] = await readsOf(database, 'p');
    await using one = store as PostgresStore;
    const contentOf = (n: number, bytes: number) => `{"n":${n},"text":"${'x'.repeat(bytes)}"}`;
    const sizes = [1_500_000, 100, LARGE_BYTES_MAX + 1, 1_500_000, 1_500_000, 1_500_000, 200];
    for (const [n, bytes] of sizes.entries()) await commitOne(one, put(`d${n}`, contentOf(n, bytes)));

    const asked = watch(database);
    const ids = [...sizes.keys()].flatMap((n) => [`d${n}`, `none-${n}`]);
    const read = await Promise.all(ids.map((id) => one.get(ref(id))));
    for (const [at, id] of ids.entries()) {
      const document = read[at];
      if (id.startsWith('none')) expect(document).toBeUndefined();
      else expect(document?.metadata._id).toBe(id);
    }
    // One for all, which returns the small ones; one each for two, two, and the one that is larger than a
    // statement's share.
    expect(asked.length).toBeGreaterThanOrEqual(4);
    const slack = 10_000;
    for (const { rows } of asked) {
      const whole = rows.filter((row) => row[3] !== null);
      expect(bytesOf(whole) <= LARGE_BYTES_MAX + slack || whole.length === 1).toBe(true);
    }
    // Small documents still share one round trip, and an absent one needs no other.
    asked.length = 0;
    await Promise.all(['d1', 'd6', 'none'].map((id) => one.get(ref(id))));
    expect(asked.map(documentsOf)).toEqual([3]);
  });

  it('of many projects share a statement of at most 128 documents, each under its own key', async () => {
    await using database = await newDatabase();
    const names = Array.from({ length: 100 }, (_, n) => `tenant-${n}`);
    const stores = await readsOf(database, ...names);
    await using _stack = stackOf(stores);
    for (const [n, store] of stores.entries())
      for (const id of ['a', 'b', 'c']) await commitOne(store, put(id, `{"of":"${n}-${id}"}`));

    const asked = watch(database);
    const read = await Promise.all(
      stores.flatMap((store) => ['a', 'b', 'c', 'none'].map((id) => store.get(ref(id)))),
    );
    const found = read.map((document) => document && JSON.parse(document.text.toString()).of);
    expect(found).toEqual(names.flatMap((_, n) => [`${n}-a`, `${n}-b`, `${n}-c`, undefined]));
    expect(asked.map(documentsOf)).toEqual([128, 128, 128, 16]);
  });

  it('of small documents are answered while large ones of another project are being read', async () => {
    await using database = await newDatabase();
    const stores = await readsOf(database, 'large', 'small');
    await using _stack = stackOf(stores);
    const [large, small] = stores as [PostgresStore, PostgresStore];
    const mebibyte = `{"text":"${'x'.repeat(1_048_576)}"}`;
    const ids = Array.from({ length: 20 }, (_, n) => `d${n}`);
    for (const id of ids) await commitOne(large, put(id, mebibyte));
    for (const id of ids) await commitOne(small, put(id, '{}'));

    const begun = Promise.withResolvers<void>();
    const goOn = Promise.withResolvers<void>();
    let statementsHeldUp = 0;
    watch(database, async ([, , bytesMax]) => {
      if (!(bytesMax as number[]).some((bytes) => bytes > INLINE_BYTES_MAX)) return;
      statementsHeldUp++;
      begun.resolve();
      await goOn.promise;
    });
    const order: string[] = [];
    const reads = ids.map((id) => large.get(ref(id)).then(() => order.push('large')));
    await begun.promise;
    // More than may run at once, one after another.
    for (const id of ids) await small.get(ref(id)).then(() => order.push('small'));
    expect(order).toEqual(ids.map(() => 'small'));
    // However many wait, large documents take a bounded number of connections.
    expect(statementsHeldUp).toBe(2);
    goOn.resolve();
    await Promise.all(reads);
    expect(order.slice(ids.length)).toEqual(ids.map(() => 'large'));
  });

  it('of large documents take turns among projects', async () => {
    await using database = await newDatabase();
    const stores = await readsOf(database, 'busy', 'other');
    await using _stack = stackOf(stores);
    const [busy, other] = stores as [PostgresStore, PostgresStore];
    const mebibyte = `{"text":"${'x'.repeat(1_048_576)}"}`;
    const ids = Array.from({ length: 40 }, (_, n) => `d${n}`);
    for (const id of ids) await commitOne(busy, put(id, mebibyte));
    await commitOne(other, put('d', mebibyte));

    const order: string[] = [];
    const reads = ids.map((id) => busy.get(ref(id)).then(() => order.push('busy')));
    reads.push(other.get(ref('d')).then(() => order.push('other')));
    await Promise.all(reads);
    // Two statements of three documents are running when it begins to wait.
    expect(order.indexOf('other')).toBeLessThan(12);
  });

  it('return a document that has grown since its size was read', async () => {
    await using database = await newDatabase();
    const [store] = await readsOf(database, 'p');
    await using one = store as PostgresStore;
    const contentOf = (bytes: number) => `{"text":"${'x'.repeat(bytes)}"}`;
    await commitOne(one, put('d', contentOf(100_000)));
    let isFirst = true;
    watch(database, async ([, , bytesMax]) => {
      if (!isFirst || !(bytesMax as number[] | undefined)?.some((bytes) => bytes > INLINE_BYTES_MAX)) return;
      isFirst = false;
      await commitOne(one, put('d', contentOf(200_000)));
    });
    const found = await Promise.all([one.get(ref('d')), one.get(ref('d'))]);
    for (const document of found) expect(document?.text.length).toBeGreaterThan(200_000);
    expect(isFirst).toBe(false);
  });

  it("never report a document as absent while a fence briefly hides its project's head", async () => {
    await using database = await newDatabase();
    const project = new PostgresProject('p');
    await project.create(database);
    await using first = await project.open(database);
    await commitOne(first, put('a', '{}'));
    const page = { collection: 'notes', after: 0, limit: 10, bytesMax: 1_000_000 };
    const reads: ((store: PostgresStore) => Promise<unknown>)[] = [
      (store) => store.get(ref('a')),
      (store) => store.list(page),
      (store) => store.collections(),
    ];
    const query = database.query.bind(database);
    const take = (from: string, to: string) =>
      database.run(
        `WITH head AS (DELETE FROM bundoc.${from} RETURNING *) INSERT INTO bundoc.${to} SELECT * FROM head`,
      );
    for (const read of reads) {
      await using store = await project.open(database);
      expect(await read(store)).toBeDefined();
      let isKeptAway = false;
      database.query = async (statement, values) => {
        if (isKeptAway) return query(statement, values);
        isKeptAway = true;
        await take('heads', 'fenced_heads');
        const rows = await query(statement, values);
        await take('fenced_heads', 'heads');
        return rows;
      };
      // The reason that the store gets: this project has no row of a file.
      await expect(read(store)).rejects.toMatchObject({ code: 'project_not_found' });
      database.query = query;
    }
  });

  it('of a document that the server cannot read fail alone', async () => {
    await using database = await newDatabase();
    const stores = await readsOf(database, 'damaged', 'whole');
    await using _stack = stackOf(stores);
    const [damaged, whole] = stores as [PostgresStore, PostgresStore];
    const ids = Array.from({ length: 30 }, (_, n) => `d${n}`);
    for (const store of stores)
      for (const id of ids) await commitOne(store, put(id, `{"text":"${'x'.repeat(20_000)}"}`));
    const name = damaged.nameOf(ref('d7'));
    // Reading only this row ends in an error of the server, as with a damaged page of its table.
    await sql(
      `ALTER TABLE bundoc.documents RENAME TO kept_documents;
       CREATE VIEW bundoc.documents AS SELECT project, name, collection, seq, created_seq, deleted_ms, key_version,
         CASE WHEN name = '\\x${name}' THEN substr(rev, 1, -1) ELSE rev END AS rev, state, sealed FROM bundoc.kept_documents;
       GRANT SELECT ON bundoc.documents TO PUBLIC`,
    );
    const read = await Promise.allSettled(stores.flatMap((store) => ids.map((id) => store.get(ref(id)))));
    expect(read.flatMap(({ status }, at) => (status === 'rejected' ? [at] : []))).toEqual([7]);
    expect((await whole.get(ref('d7')))?.metadata._id).toBe('d7');
  });

  it.each([
    ['no bytes', 'sealed = NULL'],
    ['more bytes than any document', `sealed = decode(repeat('00', ${COMMIT_BYTES_MAX + 1}), 'hex')`],
    ['no revision', 'rev = NULL'],
    ['a huge revision', "rev = decode(repeat('00', 20000000), 'hex')"],
    ['a huge state', "state = decode(repeat('00', 20000000), 'hex')"],
  ])('end without loading anything huge, where someone has planted a row with %s', async (_what, edit) => {
    await using database = await newDatabase();
    const project = new PostgresProject('p');
    await project.create(database);
    await using store = await project.open(database);
    for (const id of ['a', 'b', 'c']) await commitOne(store, put(id, '{}'));
    await sql(
      `ALTER TABLE bundoc.documents ALTER COLUMN rev DROP NOT NULL; UPDATE bundoc.documents SET ${edit} WHERE seq <> 2`,
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

  it.each([
    ['knows nothing of a project that has grown', ''],
    ['knows many small projects, and one has grown', SMALL_PROJECTS],
  ])('use the index that fits, also when the planner %s', async (_, others) => {
    await using database = await newDatabase();
    if (others !== '') await sql(`${others}; ANALYZE`);
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
    const idempotency = { key: 'k', request: 'r' };
    await store.commit(
      Array.from({ length: 200 }, (_, n) => put(`d${n}`, '{}')),
      { idempotency },
    );
    await store.list({ collection: 'notes', after: 100, limit: 10, bytesMax: 100_000 });
    await store.changes(100, 10);
    await store.sealedChanges(100, { limit: 10, bytesMax: 100_000 });

    const kept = 'SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan;';
    const plansOf = (table: string) =>
      Promise.all(
        asked
          .filter((text) => text.includes(`bundoc.${table}`))
          .flatMap((text) => ['', kept].map((settings) => sql(`${settings}${text}`))),
      );
    const plans = await plansOf('documents');
    expect(plans).toHaveLength(12);
    const byName = /Index Scan using documents_pkey .*\n\s+Index Cond: \(.*project.* AND .*name = /;
    for (const plan of plans.slice(0, 6)) {
      expect(plan).toMatch(byName);
      expect(plan).not.toMatch(/Seq Scan on documents|Bitmap.* documents|documents_by|Hash|Merge/);
    }
    for (const plan of plans.slice(6, 8)) expect(plan).toMatch(/documents_by_creation/);
    for (const plan of plans.slice(8)) expect(plan).toMatch(/documents_by_change/);
    for (const plan of await plansOf('used_keys')) expect(plan).toMatch(/used_keys_pkey/);
  });

  it('read no whole table because of a plan from when it was small', async () => {
    await using database = await newDatabase({ connectionsMax: 1 });
    const [store] = await readsOf(database, 'p');
    await using one = store as PostgresStore;
    for (const id of ['a', 'b', 'c']) await commitOne(one, put(id, '{}'));
    await sql('VACUUM ANALYZE');
    // Often enough that the server makes a generic plan, which the connection keeps.
    for (let turn = 0; turn < 10; turn++) await one.get(ref('a'));
    const name = one.nameOf(ref('a'));
    const [rows] = await database.run(
      `EXPLAIN EXECUTE "bundoc-read-2" ('{p}', ARRAY['\\x${name}'::bytea], '{65536}', '{p}')`,
    );
    const plan = rows?.flat().join('\n');
    expect(plan).toMatch(/documents_pkey/);
    expect(plan).toMatch(/heads_pkey/);
    expect(plan).not.toMatch(/Seq Scan/);
  });
});

/** A statement that shows the plan of a prepared one. */
function planOf(text: string, values: readonly unknown[]): string {
  const literals = values.map((value) => {
    if (Buffer.isBuffer(value)) return `'\\x${value.toString('hex')}'`;
    if (!Array.isArray(value)) return `'${value}'`;
    const each = (one: unknown) => (Buffer.isBuffer(one) ? `"\\\\x${one.toString('hex')}"` : one);
    return `'{${value.map(each).join()}}'`;
  });
  return `PREPARE asked AS ${text}; EXPLAIN EXECUTE asked (${literals.join()})`;
}
