import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import { describeProjectStore } from '../src/engine/conformance/conformance.ts';
import { describeQuota } from '../src/engine/conformance/quota-conformance.ts';
import { describeTakeOvers } from '../src/engine/conformance/take-over-conformance.ts';
import { IDEMPOTENCY_TTL_MS, TOMBSTONE_TTL_MS, TOMBSTONES_MAX } from '../src/engine/port/port.ts';
import { positionAt } from '../src/engine/port/positions.ts';
import { fenceHead } from '../src/engine/postgres/rows/fence.ts';
import { skipPositions } from '../src/engine/postgres/rows/skip-positions.ts';
import { SNAPSHOT_TRANSACTION, verifyRows } from '../src/engine/postgres/verify/verify-rows.ts';
import { openTestDatabase } from '../src/testing/postgres-project.ts';
import { commitOne, put, remove } from '../src/testing/writes.ts';
import { database, newProject, server, sql, textOf, usePostgresEngine } from './support/postgres-engine.ts';

describe('PostgreSQL', needs('postgresql'), () => {
  usePostgresEngine();

  describeProjectStore('the PostgreSQL engine', async () => {
    const project = await newProject();
    return { store: await project.open(database), reopen: () => project.open(database) };
  });

  describeTakeOvers('the PostgreSQL engine', async () => {
    const project = await newProject();
    return {
      store: await project.open(database),
      reopen: () => project.open(database),
      takeOver: (takenOverMs) => skipPositions(database, positionAt(takenOverMs)),
    };
  });

  it('lets commits of other projects pass while a take-over waits for one head, and misses no head', async () => {
    const [held, other] = [await newProject(), await newProject()];
    const stores = await Promise.all([held, other].map((project) => project.open(database)));
    for (const store of stores) await commitOne(store, put('a', '{}'));
    const release = Promise.withResolvers<void>();
    const locked = Promise.withResolvers<void>();
    const holding = database.transaction('', async (transaction) => {
      await transaction.run(`SELECT FROM bundoc.heads WHERE project = '${held.project}' FOR UPDATE`);
      locked.resolve();
      await release.promise;
      await fenceHead(transaction, held.project);
      return true;
    });
    await locked.promise;
    let isSkipped = false;
    const skipped = skipPositions(database, positionAt(9_000)).then(() => {
      isSkipped = true;
    });
    await expect.poll(() => stores[1]!.position()).toBe(positionAt(9_000));
    await commitOne(stores[1]!, put('b', '{}'));
    expect(isSkipped).toBe(false);
    release.resolve();
    await Promise.all([holding, skipped]);
    const fenced = `SELECT seq FROM bundoc.fenced_heads WHERE project = '${held.project}'`;
    expect(await sql(fenced)).toBe(String(positionAt(9_000)));
    await sql(`DELETE FROM bundoc.fenced_heads WHERE project = '${held.project}'`);
    for (const store of stores) await store[Symbol.asyncDispose]();
  });

  it('gives a take-over up when someone undoes it, so that no node stays in it', async () => {
    const project = await newProject();
    const store = await project.open(database);
    await commitOne(store, put('a', '{}'));
    await sql(
      `CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
       CREATE TRIGGER kept BEFORE UPDATE ON bundoc.heads FOR EACH ROW WHEN (OLD.project = '${project.project}') EXECUTE FUNCTION keep()`,
    );
    const skipped = skipPositions(database, positionAt(10_000));
    await expect(skipped).rejects.toMatchObject({ code: 'storage_unavailable' });
    await sql('DROP TRIGGER kept ON bundoc.heads; DROP FUNCTION keep()');
    await skipPositions(database, positionAt(10_000));
    expect(await store.position()).toBe(positionAt(10_000));
    await store[Symbol.asyncDispose]();
  });

  it('moves thousands of heads in steps', async () => {
    await sql(
      `INSERT INTO bundoc.heads (project, key_version) SELECT 'many-' || n, 1 FROM generate_series(1, 2500) AS n`,
    );
    await skipPositions(database, positionAt(12_000));
    const behind = `SELECT count(*) FROM bundoc.heads WHERE project LIKE 'many-%' AND seq <> ${positionAt(12_000)}`;
    expect(await sql(behind)).toBe('0');
    await sql(`DELETE FROM bundoc.heads WHERE project LIKE 'many-%'`);
  });

  describeQuota('the PostgreSQL engine', async (quota) => (await newProject({ quota })).open(database));

  it('purges deletions after seven days, and tells readers that missed them', async () => {
    const clock = new FakeClock();
    const project = await newProject({ clock });
    const store = await project.open(database);
    await store.commit([put('a', '{}'), put('b', '{}'), put('c', '{}')]);
    const early = await store.changes(0, 1);
    await commitOne(store, remove('a'));
    const late = await store.changes(0, 10);
    clock.advance(TOMBSTONE_TTL_MS + 1);
    await store.checkpoint();
    await expect(store.changes(early.position, 10, early.horizon)).rejects.toMatchObject({
      code: 'position_gone',
    });
    expect((await store.changes(late.position, 10, late.horizon)).changes).toEqual([]);
    const fresh = await store.changes(0, 10);
    expect(fresh.changes.map(({ ref: { id } }) => id)).toEqual(['b', 'c']);
    expect((await store.changes(fresh.position, 10, fresh.horizon)).changes).toEqual([]);
  });

  it('keeps the last 100,000 deletions, and tells readers that missed earlier ones', async () => {
    const project = await newProject({ clock: new FakeClock() });
    const store = await project.open(database);
    await commitOne(store, put('a', '{}'));
    const { position } = await store.changes(0, 10);
    const own = `project = '${project.project}'`;
    const tombstones = () =>
      sql(`SELECT count(*), min(seq) FROM bundoc.documents WHERE ${own} AND deleted_ms > 0`);
    await sql(
      `INSERT INTO bundoc.documents (project, name, collection, seq, created_seq, deleted_ms, key_version, rev, state)
       SELECT '${project.project}', sha256(n::text::bytea), collection, 10 + n, 10 + n, 9000000000000 + n, 1, rev, state
       FROM bundoc.documents, generate_series(1, ${TOMBSTONES_MAX + 1_500}) AS n WHERE ${own};
       UPDATE bundoc.heads SET seq = 500000 WHERE ${own}`,
    );
    await store.checkpoint();
    expect(await tombstones()).toBe(`${TOMBSTONES_MAX}|1511`);
    expect(await sql(`SELECT purged_seq FROM bundoc.heads WHERE ${own}`)).toBe('1510');
    await expect(store.changes(position, 10)).rejects.toMatchObject({ code: 'position_gone' });
  });

  it('drops idempotency keys after a day', async () => {
    const clock = new FakeClock();
    const project = await newProject({ clock });
    const store = await project.open(database);
    const options = { idempotency: { key: 'a'.repeat(32), request: 'b'.repeat(32) } };
    await store.commit([put('a', '{}', { kind: 'absent' })], options);
    clock.advance(IDEMPOTENCY_TTL_MS);
    await expect(store.commit([put('a', '{}', { kind: 'absent' })], options)).rejects.toMatchObject({
      code: 'precondition_failed',
    });
    await store.checkpoint();
    expect(await sql(`SELECT count(*) FROM bundoc.used_keys WHERE project = '${project.project}'`)).toBe('0');
  });

  it('refuses writes after a head was rolled back: contradictory rows are not a defect', async () => {
    const project = await newProject();
    const store = await project.open(database);
    for (const id of ['a', 'b']) await commitOne(store, put(id, '{}'));
    await sql(`UPDATE bundoc.heads SET seq = seq - 1 WHERE project = '${project.project}'`);
    await expect(commitOne(store, put('c', '{}'))).rejects.toMatchObject({ code: 'integrity_error' });
    expect(await textOf(store, 'b')).toBeDefined();
  });

  it('contains nothing readable of a document, its id or its collection', async () => {
    const project = await newProject();
    const store = await project.open(database);
    const secrets = [
      'PlantedCollection',
      'planted-document-id',
      'plantedField',
      'planted value',
      'planted-request',
    ];
    const write = {
      ...put('', `{"${secrets[2]}":"${secrets[3]}"}`),
      ref: { collection: secrets[0] as string, id: secrets[1] as string },
    };
    const idempotency = {
      key: 'd'.repeat(32),
      request: Buffer.from('planted-request').toString('hex').padEnd(32, '0'),
    };
    await store.commit([write], { idempotency });
    const dump = await server.dump('bundoc');
    expect(dump).toContain(project.project);
    const forms = secrets.flatMap((text) => [
      text,
      Buffer.from(text).toString('hex'),
      Buffer.from(text).toString('base64'),
    ]);
    for (const form of [...forms, idempotency.key, idempotency.request]) expect(dump).not.toContain(form);
  });

  it('verifies every row, deletions included, and reports how many it has verified', async () => {
    const project = await newProject();
    const store = await project.open(database);
    await store.commit([put('a', '{}'), put('b', '{}'), put('c', '{}')]);
    await commitOne(store, remove('a'));
    const progress: [number, number][] = [];
    const verified = await database.transaction(SNAPSHOT_TRANSACTION, (transaction) =>
      verifyRows(transaction, project.project, project.cipher, (...at) => progress.push(at)),
    );
    expect(verified).toEqual({ documents: 2, findings: [] });
    expect(progress).toEqual([
      [1, 3],
      [2, 3],
      [3, 3],
    ]);
  });

  it('finds a collection whose name is damaged when it verifies', async () => {
    const project = await newProject();
    const store = await project.open(database);
    await commitOne(store, put('a', '{}'));
    await sql(
      `UPDATE bundoc.collections SET name = set_byte(name, 20, get_byte(name, 20) # 1) WHERE project = '${project.project}'`,
    );
    const damaged = {
      part: expect.stringMatching(/^collection [0-9a-f]+$/),
      problem: 'its name does not open',
    };
    const missing = { part: 'collections', problem: 'a row is missing' };
    const verified = await database.transaction(SNAPSHOT_TRANSACTION, (transaction) =>
      verifyRows(transaction, project.project, project.cipher, () => undefined),
    );
    expect(verified?.findings).toEqual([damaged, missing]);
  });

  it('never reuses a connection with a transaction that failed at its start', async () => {
    await using alone = openTestDatabase(server.urlOf('bundoc'), {
      connectionsMax: 1,
      statementTimeoutMs: 50,
    });
    await expect(alone.transaction('SELECT pg_sleep(5)', async () => true)).rejects.toMatchObject({
      code: 'storage_unavailable',
    });
    // Repeated in case the machine delays even this one for as long.
    await expect.poll(() => alone.query({ name: 'one', text: 'SELECT 1' }, [])).toEqual([[1]]);
  });
});
