import { systemClock } from '@bundoc/shared/runtime/clock';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import type { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { describeWithPostgres } from '@bundoc/shared/testing/postgres-tests';
import { PATIENT_MS, startInBackground } from '@bundoc/shared/testing/timing';
import { describe, expect, it } from 'vitest';
import { describeProjectStore } from '../src/engine/conformance.ts';
import {
  IDEMPOTENCY_TTL_MS,
  type ProjectStore,
  TOMBSTONE_TTL_MS,
  TOMBSTONES_MAX,
} from '../src/engine/port.ts';
import { CommitNotifications } from '../src/engine/postgres/commit-notifications.ts';
import type { Database } from '../src/engine/postgres/database/database.ts';
import { migrate, readMigrations, SchemaMismatch } from '../src/engine/postgres/database/migrate.ts';
import { SNAPSHOT_TRANSACTION, verifyRows } from '../src/engine/postgres/verify/verify-rows.ts';
import { describeQuota } from '../src/engine/quota-conformance.ts';
import { openTestDatabase, testDatabaseOptions } from '../src/testing/postgres-project.ts';
import { commitOne, put, ref, remove } from '../src/testing/writes.ts';
import { COMMIT_MESSAGE, CuttingProxy } from './support/cutting-proxy.ts';
import { type UsedDatabase, useDatabase } from './support/use-database.ts';

describeWithPostgres('PostgreSQL', () => {
  let server: PostgresServer;
  let database: Database;
  let newProject: UsedDatabase['newProject'];
  useDatabase((used) => {
    ({ server, database, newProject } = used);
  });

  const sql = (text: string) => server.sql(text, 'bundoc');
  const textOf = async (store: ProjectStore, id: string) => (await store.get(ref(id)))?.text.toString();

  /** Every overwrite of a document of the project meets a full disk, while `action` runs. */
  const refuseWrites = async (project: string, action: () => Promise<void>) => {
    await sql(
      `CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$;
       CREATE TRIGGER full_disk BEFORE UPDATE ON bundoc.documents FOR EACH ROW
       WHEN (NEW.project = '${project}') EXECUTE FUNCTION full_disk()`,
    );
    try {
      await action();
    } finally {
      await sql('DROP FUNCTION full_disk CASCADE');
    }
  };

  describeProjectStore('the PostgreSQL engine', async () => {
    const project = await newProject();
    return { store: await project.open(database), reopen: () => project.open(database) };
  });

  describeQuota('the PostgreSQL engine', async (quota) => (await newProject({ quota })).open(database));

  describe('several nodes of one project', () => {
    it('enforce a quota exactly, together', async () => {
      const project = await newProject({ quota: { documentsMax: 25, bytesMax: 0 } });
      const nodes = await Promise.all([1, 2, 3].map(() => project.open(database)));
      const outcomes = await Promise.allSettled(
        Array.from({ length: 60 }, (_, n) => (nodes[n % 3] as ProjectStore).commit([put(`d${n}`, '{}')])),
      );
      expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(25);
      for (const outcome of outcomes)
        if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'quota_exceeded' });
      for (const node of nodes) await node[Symbol.asyncDispose]();
    });

    it("see each other's acknowledged writes and give each change one place in the order", async () => {
      const project = await newProject();
      const nodes = await Promise.all([1, 2, 3].map(() => project.open(database)));
      const told: string[] = [];
      let position = 0;
      let isWriting = true;
      const reading = startInBackground(
        (async () => {
          const node = nodes[0] as ProjectStore;
          for (let last = false; !last; ) {
            last = !isWriting;
            const page = await node.changes(position, 10);
            told.push(...page.changes.map(({ ref: { id } }) => id));
            position = page.position;
          }
        })(),
      );
      const ids = Array.from({ length: 300 }, (_, n) => `doc-${n}`);
      await Promise.all(
        ids.map(async (id, n) => {
          await commitOne(nodes[n % 3] as ProjectStore, put(id, `{"n":${n}}`, { kind: 'absent' }));
          expect(await textOf(nodes[(n + 1) % 3] as ProjectStore, id)).toContain(`"n":${n}`);
        }),
      );
      isWriting = false;
      await reading;
      for (;;) {
        const page = await (nodes[1] as ProjectStore).changes(position, 100);
        if (page.changes.length === 0) break;
        told.push(...page.changes.map(({ ref: { id } }) => id));
        position = page.position;
      }
      expect(told.length).toBe(ids.length);
      expect(new Set(told)).toEqual(new Set(ids));
    });

    it('let one of many writers win a compare-and-set', async () => {
      const project = await newProject();
      const nodes = await Promise.all([1, 2, 3].map(() => project.open(database)));
      const { metadata } = await commitOne(nodes[0] as ProjectStore, put('a', '{"v":0}'));
      const precondition = { kind: 'revision', anyOf: [String(metadata?._rev)] } as const;
      const outcomes = await Promise.allSettled(
        Array.from({ length: 30 }, (_, n) =>
          commitOne(nodes[n % 3] as ProjectStore, put('a', `{"v":${n}}`, precondition)),
        ),
      );
      expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    });

    it('write once under one idempotency key', async () => {
      const project = await newProject();
      const nodes = await Promise.all([1, 2, 3].map(() => project.open(database)));
      const idempotency = { key: 'a'.repeat(32), request: 'b'.repeat(32) };
      const all = await Promise.all(
        Array.from({ length: 12 }, (_, n) =>
          (nodes[n % 3] as ProjectStore).commit([put('a', '{}')], { idempotency }),
        ),
      );
      expect(new Set(all.map(([result]) => result?.metadata?._rev)).size).toBe(1);
    });
  });

  describe('a waiter for a change', () => {
    const timing = { notifyEveryMs: 5, pollEveryMs: 3_600_000, pollAloneEveryMs: 5 };
    const newsOf = (isListening: boolean) => {
      const connection = testDatabaseOptions(server.urlOf('bundoc'), { isPooled: !isListening });
      return new CommitNotifications({
        database,
        connection,
        logger: connection.logger,
        timing: isListening ? timing : { ...timing, notifyEveryMs: 3_600_000 },
      });
    };
    for (const isListening of [true, false])
      it(`notices a commit of another node ${isListening ? 'by a notification' : 'behind a pooler, by polling'}`, async () => {
        const project = await newProject();
        await using here = newsOf(isListening);
        await using there = newsOf(isListening);
        await here.ready;
        const [reader, writer] = [await project.open(database, here), await project.open(database, there)];
        const signal = AbortSignal.timeout(PATIENT_MS);
        for (let n = 1; n <= 5; n++) {
          const waiting = reader.waitForChange(n - 1, signal);
          await commitOne(writer, put('a', `{"n":${n}}`));
          expect(await waiting).toBe(n);
        }
        for (const store of [reader, writer]) await store[Symbol.asyncDispose]();
      });
  });

  describe('a connection that breaks during the acknowledgement of a commit', () => {
    for (const cut of ['before the request', 'before the answer'] as const)
      it(`results in one write, whether it took effect or not (${cut})`, async () => {
        const project = await newProject();
        await using proxy = await CuttingProxy.open(server.port);
        await using behind = openTestDatabase(server.urlOf('bundoc', proxy.port));
        const store = await project.open(behind);
        await commitOne(store, put('other', '{}'));
        proxy.cutAt(COMMIT_MESSAGE, cut);
        const [first, second] = await Promise.all([
          commitOne(store, put('a', '{"v":1}', { kind: 'absent' })),
          commitOne(store, put('b', '{"v":2}', { kind: 'absent' })),
        ]);
        expect(proxy.cuts).toBe(1);
        expect([first.created, second.created]).toEqual([true, true]);
        expect((await store.get(ref('a')))?.metadata).toEqual(first.metadata);
        const { changes, position } = await store.changes(0, 10);
        expect(changes.map(({ ref: { id } }) => id)).toEqual(['other', 'a', 'b']);
        expect(position).toBe(3);
        await store[Symbol.asyncDispose]();
      });

    it('results in one write when it breaks before', async () => {
      const project = await newProject();
      await using proxy = await CuttingProxy.open(server.port);
      await using behind = openTestDatabase(server.urlOf('bundoc', proxy.port));
      const store = await project.open(behind);
      proxy.cutAt('bundoc-write-group', 'before the answer');
      await commitOne(store, put('a', '{}', { kind: 'absent' }));
      expect(proxy.cuts).toBe(1);
      proxy.cutAt('bundoc-lock-heads', 'before the request');
      await commitOne(store, put('a', '{}', { kind: 'present' }));
      expect((await store.changes(0, 10)).changes).toHaveLength(1);
      await store[Symbol.asyncDispose]();
    });
  });

  it('is reported as unavailable, with a time to retry, while nothing answers', async () => {
    const project = await newProject();
    let nowMs = 1_000;
    const clock = { ...systemClock, monotonic: () => (nowMs += 2_000), now: () => (nowMs += 2_000) };
    await using proxy = await CuttingProxy.open(server.port);
    const behind = openTestDatabase(server.urlOf('bundoc', proxy.port));
    const impatient = Object.assign(project, { clock });
    const store = await impatient.open(behind);
    await proxy[Symbol.asyncDispose]();
    const refused = { code: 'storage_unavailable', retryAfterS: 1 };
    await expect(commitOne(store, put('a', '{}'))).rejects.toMatchObject(refused);
    await expect(store.get(ref('a'))).rejects.toMatchObject(refused);
    await store[Symbol.asyncDispose]();
    await behind[Symbol.asyncDispose]();
  });

  it('reports a full disk, and changes nothing', async () => {
    const project = await newProject();
    const store = await project.open(database);
    await commitOne(store, put('a', '{"v":1}'));
    await refuseWrites(project.project, async () => {
      await expect(commitOne(store, put('a', '{"v":2}'))).rejects.toMatchObject({ code: 'disk_full' });
    });
    expect(await textOf(store, 'a')).toContain('"v":1');
    await commitOne(store, put('a', '{"v":3}'));
  });

  describe('a tampered row', () => {
    const damages: Record<string, string> = {
      'its sealed bytes': `UPDATE bundoc.documents SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1)`,
      'its revision': `UPDATE bundoc.documents SET rev = set_byte(rev, 0, get_byte(rev, 0) # 1)`,
    };
    for (const [what, damage] of Object.entries(damages))
      it(`is undecryptable (${what}), and can be replaced and deleted`, async () => {
        const project = await newProject();
        const store = await project.open(database);
        for (const id of ['a', 'b']) await commitOne(store, put(id, '{"v":1}'));
        const name = project.cipher.fileName(ref('a'));
        const damaged = `${damage} WHERE project = '${project.project}' AND name = '\\x${name}'`;
        await sql(damaged);
        await expect(store.get(ref('a'))).rejects.toMatchObject({ code: 'integrity_error' });
        expect(project.damaged).toContain(name);
        const page = await store.list({ collection: 'notes', after: 0, limit: 10, bytesMax: 1_000_000 });
        expect(page.documents.map(({ metadata }) => metadata._id)).toEqual(['b']);
        await commitOne(store, put('a', '{"v":2}', { kind: 'present' }));
        expect(await textOf(store, 'a')).toContain('"v":2');
        await sql(damaged);
        await commitOne(store, remove('a'));
        expect(await store.get(ref('a'))).toBeUndefined();
      });

    it('is undecryptable when its place in an order was changed', async () => {
      const project = await newProject();
      const store = await project.open(database);
      await commitOne(store, put('a', '{}'));
      await sql(`UPDATE bundoc.documents SET seq = 9 WHERE project = '${project.project}'`);
      await expect(store.changes(0, 10)).rejects.toMatchObject({ code: 'integrity_error' });
    });

    it('is undecryptable under the name of another document, collection or project', async () => {
      const [project, other] = [await newProject(), await newProject()];
      const store = await project.open(database);
      const otherStore = await other.open(database);
      for (const id of ['a', 'b']) await commitOne(store, put(id, '{}'));
      await commitOne(otherStore, put('a', '{}'));
      const [a, b] = ['a', 'b'].map((id) => project.cipher.fileName(ref(id)));
      const own = `project = '${project.project}'`;
      await sql(
        `UPDATE bundoc.documents AS d SET sealed = o.sealed, rev = o.rev, state = o.state FROM bundoc.documents AS o
         WHERE d.${own} AND d.name = '\\x${a}' AND o.${own} AND o.name = '\\x${b}'`,
      );
      await expect(store.get(ref('a'))).rejects.toMatchObject({ code: 'integrity_error' });
      await sql(
        `UPDATE bundoc.documents AS d SET sealed = o.sealed, rev = o.rev, state = o.state FROM bundoc.documents AS o
         WHERE d.${own} AND d.name = '\\x${b}' AND o.project = '${other.project}'`,
      );
      await expect(store.get(ref('b'))).rejects.toMatchObject({ code: 'integrity_error' });
    });
  });

  describe('a new version of the key', () => {
    it('is followed by every node, and takes over all documents without a visible change', async () => {
      const project = await newProject();
      const before = await project.open(database);
      for (let n = 0; n < 5; n++) await commitOne(before, put(`doc-${n}`, `{"n":${n}}`));
      await commitOne(before, remove('doc-4'));
      const { position } = await before.changes(0, 10);
      const former = await before.get(ref('doc-0'));
      await project.rotate(database);
      await expect(commitOne(before, put('a', '{}'))).rejects.toMatchObject({ code: 'storage_unavailable' });
      expect(before.failed).toBe(true);

      const store = await project.open(database);
      expect(store.pendingReencryption).toBe(4);
      await commitOne(store, put('doc-1', '{"again":1}'));
      // Two nodes find the same documents. Each counts only what it has moved itself.
      const late = await project.open(beforeTransactions(database, () => store.reseal(2)));
      expect(await late.reseal(2)).toMatchObject({ resealed: 0, skipped: 0, goesOn: true });
      expect(store.pendingReencryption).toBe(1);
      expect((await project.open(database)).pendingReencryption).toBe(1);
      // Upkeep leaves a project without pending documents alone, so its names must be moved by then.
      while (store.pendingReencryption > 0) await store.reseal(2);
      expect(await store.get(ref('doc-0'))).toEqual(former);
      expect((await store.changes(position, 10)).changes.map(({ ref: { id } }) => id)).toEqual(['doc-1']);
      expect((await store.collections()).map(({ documents }) => documents)).toEqual([4]);

      project.forgetFormerVersions();
      const after = await project.open(database);
      expect(await after.get(ref('doc-0'))).toEqual(former);
      expect((await after.collections()).map(({ name }) => name)).toEqual(['notes']);
    });

    it('leaves an unreadable document pending, reports it, and tries it again later', async () => {
      const clock = new FakeClock();
      const project = await newProject({ clock });
      const before = await project.open(database);
      for (const id of ['a', 'b', 'c']) await commitOne(before, put(id, '{}'));
      const row = `project = '${project.project}' AND name = '\\x${project.cipher.fileName(ref('b'))}'`;
      await sql(`UPDATE bundoc.documents SET sealed = sealed || '\\x00' WHERE ${row}`);
      await project.rotate(database);
      const store = await project.open(database);
      let resealed = 0;
      const step = async () => {
        const done = await store.reseal(2);
        resealed += done.resealed;
        return done;
      };
      while ((await step()).goesOn);
      expect([resealed, store.pendingReencryption]).toEqual([2, 1]);
      expect(project.damaged).toEqual([project.cipher.fileName(ref('b'))]);
      expect(await step()).toEqual({ resealed: 0, skipped: 0, goesOn: false });

      await sql(
        `UPDATE bundoc.documents SET sealed = substr(sealed, 1, octet_length(sealed) - 1) WHERE ${row}`,
      );
      clock.advance(60_000);
      while ((await step()).goesOn);
      expect([resealed, store.pendingReencryption]).toEqual([3, 0]);
    });

    it("is requested in time, and nothing is sealed beyond a version's maximum", async () => {
      const project = await newProject({ sealLimits: { rotateAt: 5, max: 8 } });
      const [one, two] = [await project.open(database), await project.open(database)];
      for (const store of [one, two]) for (let n = 0; n < 2; n++) await commitOne(store, put('a', '{}'));
      expect(project.rotationsDue).toEqual([]);
      await commitOne(one, put('b', '{}'));
      expect(project.rotationsDue).toEqual([1]);
      for (let n = 0; n < 3; n++) await commitOne(two, put('c', '{}'));
      await expect(commitOne(one, put('a', '{}'))).rejects.toMatchObject({ code: 'key_exhausted' });
      await expect(commitOne(two, put('a', '{}'))).rejects.toMatchObject({ code: 'key_exhausted' });
    });

    it.each([
      ['another value is put in its place', "'\\x0000000140000000'"],
      ['one of another project is', '(SELECT seals FROM bundoc.key_versions WHERE project = $other)'],
      [
        'one of another version is',
        '(SELECT seals FROM bundoc.key_versions WHERE project = $own AND version = 1)',
      ],
      ['a huge one is', "decode(repeat('00', 20000000), 'hex')"],
    ])("is requested only by a node's own count: nothing is written while %s", async (_what, value) => {
      const sealLimits = { rotateAt: 2, max: 100 };
      const [project, other] = [await newProject({ sealLimits }), await newProject({ sealLimits })];
      // A count at which a rotation is due, for each.
      for (const one of [project, other])
        for (let n = 0; n < 2; n++) await commitOne(await one.open(database), put('a', '{}'));
      expect([project.rotationsDue, other.rotationsDue]).toEqual([[1], [1]]);
      await project.rotate(database);
      await commitOne(await project.open(database), put('a', '{}'));
      const own = `project = '${project.project}' AND version = 2`;
      const [[genuine]] = (await database.run(`SELECT seals FROM bundoc.key_versions WHERE ${own}`))[0] as [
        [Buffer],
      ];
      const edit = value
        .replace('$own', `'${project.project}'`)
        .replace('$other', `'${other.project}' LIMIT 1`);
      await sql(`UPDATE bundoc.key_versions SET seals = ${edit} WHERE ${own}`);
      const store = await project.open(database);
      await expect(commitOne(store, put('a', '{}'))).rejects.toMatchObject({ code: 'integrity_error' });
      expect(await textOf(store, 'a')).toContain('"_id":"a"');
      const verified = await database.transaction(SNAPSHOT_TRANSACTION, (transaction) =>
        verifyRows(transaction, project.project, project.cipher, () => undefined),
      );
      expect(verified?.findings).toEqual([
        { part: 'key version 2', problem: 'the count of its seals does not open' },
      ]);
      expect(project.rotationsDue).toEqual([1]);
      await sql(`UPDATE bundoc.key_versions SET seals = '\\x${genuine.toString('hex')}' WHERE ${own}`);
      await commitOne(store, put('a', '{}'));
    });

    it('is not requested where the count was removed or rolled back, and counting continues', async () => {
      const project = await newProject({ sealLimits: { rotateAt: 6, max: 100 } });
      await commitOne(await project.open(database), put('a', '{}'));
      await sql(`UPDATE bundoc.key_versions SET seals = NULL WHERE project = '${project.project}'`);
      const store = await project.open(database);
      for (let n = 0; n < 5; n++) await commitOne(store, put('a', '{}'));
      expect(project.rotationsDue).toEqual([]);
      await sql(`DELETE FROM bundoc.key_versions WHERE project = '${project.project}'`);
      const without = await project.open(database);
      await expect(commitOne(without, put('a', '{}'))).rejects.toMatchObject({ code: 'integrity_error' });
    });

    it('counts the concurrent seals of many nodes', async () => {
      const project = await newProject({ sealLimits: { rotateAt: 1_000, max: 41 } });
      const nodes = await Promise.all([1, 2, 3, 4].map(() => project.open(database)));
      const writing = nodes.map(async (node, at) => {
        for (let n = 0; n < 10; n++) await commitOne(node, put(`${at}`, '{}'));
        await node[Symbol.asyncDispose]();
      });
      await Promise.all(writing);
      const last = await project.open(database);
      await commitOne(last, put('a', '{}'));
      await expect(commitOne(last, put('a', '{}'))).rejects.toMatchObject({ code: 'key_exhausted' });
    });

    it('counts the seals of a failed transaction with the next one', async () => {
      const project = await newProject({ sealLimits: { rotateAt: 100, max: 5 } });
      const store = await project.open(database);
      await commitOne(store, put('a', '{"v":1}'));
      await refuseWrites(project.project, async () => {
        for (let n = 0; n < 2; n++)
          await expect(commitOne(store, put('a', '{"v":2}'))).rejects.toMatchObject({ code: 'disk_full' });
      });
      await commitOne(store, put('b', '{}'));
      await commitOne(store, put('c', '{}'));
      await expect(commitOne(store, put('d', '{}'))).rejects.toMatchObject({ code: 'key_exhausted' });
    });

    it('counts no refused write and no deletion as sealed', async () => {
      const project = await newProject({ sealLimits: { rotateAt: 100, max: 2 } });
      const store = await project.open(database);
      await commitOne(store, put('a', '{}'));
      for (let n = 0; n < 3; n++)
        await expect(commitOne(store, put('a', '{}', { kind: 'absent' }))).rejects.toMatchObject({
          code: 'precondition_failed',
        });
      await commitOne(store, remove('a'));
      await commitOne(store, put('a', '{}'));
    });
  });

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

  describe('the schema', () => {
    const withDatabase = async (name: string, action: (fresh: Database) => Promise<void>) => {
      await using fresh = openTestDatabase((await server.createDatabase(name)).url);
      await action(fresh);
    };

    it('is migrated once by nodes that start together', async () => {
      await withDatabase('together', async (fresh) => {
        await Promise.all([1, 2, 3, 4].map(() => migrate(fresh)));
        expect(await server.sql('SELECT count(*) FROM bundoc.migrations', 'together')).toBe(
          String(readMigrations().length),
        );
      });
    });

    it('from before storages is migrated without projects, and left unchanged with one', async () => {
      const known = readMigrations();
      const former = known.filter(({ version }) => version < 4);
      await withDatabase('former', async (fresh) => {
        await migrate(fresh, former);
        await fresh.run("INSERT INTO bundoc.projects (project, file) VALUES ('p', '{}')");
        await expect(migrate(fresh)).rejects.toThrow(/export them with that build/);
        await migrate(fresh, former);
        await fresh.run('DELETE FROM bundoc.projects');
        await migrate(fresh);
      });
    });

    it('works with the previous build, and is refused by one that is too old for it', async () => {
      await withDatabase('newer', async (fresh) => {
        const known = readMigrations();
        const { version = 0 } = known.at(-1) ?? {};
        const next = { version: version + 1, text: 'SELECT 1', worksFrom: version };
        await migrate(fresh, [...known, next]);
        await migrate(fresh, known);
        await migrate(fresh, [
          ...known,
          next,
          { version: version + 2, text: 'SELECT 1', worksFrom: version + 1 },
        ]);
        await expect(migrate(fresh, known)).rejects.toThrow(SchemaMismatch);
      });
    });
  });
});

/** The same database, where something else happens before each transaction. */
function beforeTransactions(database: Database, action: () => Promise<unknown>): Database {
  return new Proxy(database, {
    get: (target, name) => {
      if (name === 'transaction')
        return async (...args: Parameters<Database['transaction']>) => {
          await action();
          return target.transaction(...args);
        };
      const member: unknown = Reflect.get(target, name, target);
      return typeof member === 'function' ? member.bind(target) : member;
    },
  });
}
