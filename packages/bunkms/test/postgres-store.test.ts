import { randomUUID } from 'node:crypto';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { filteredListConformance, NAMES, RECORDS } from '../src/store/conformance/lists.ts';
import { storeConformance } from '../src/store/conformance/store.ts';
import { postgresDialect } from '../src/store/postgres/dialect.ts';
import { openPostgresStore } from '../src/store/postgres/postgres-store.ts';
import { AuditTable } from '../src/store/sql/audit-table.ts';
import { PostgresDatabases, settingsOf } from './support/postgres.ts';

describe('a store in PostgreSQL', needs('postgresql'), () => {
  let databases: PostgresDatabases;
  beforeAll(async () => {
    databases = await PostgresDatabases.start();
  });
  afterAll(() => databases[Symbol.asyncDispose]());

  storeConformance('PostgreSQL', async () => {
    const place = randomUUID();
    const settings = settingsOf(await databases.url(place));
    return {
      open: () => openPostgresStore({ settings, warn: () => undefined }),
      dispose: () => databases.forget(place),
    };
  });

  it('finds the latest change of a key and of a storage, and the next storage, without scanning the chain, however few keys exist', async () => {
    const place = randomUUID();
    const url = await databases.url(place);
    await using _store = await openPostgresStore({ settings: settingsOf(url), warn: () => undefined });
    await databases.edit(
      place,
      `INSERT INTO audit (seq, time, severity, action, outcome, key, detail, prev_hash, hash, write_id)
         SELECT i, '', 'INFO', 'key.create', 'allowed', 'key-' || (i % 3), CASE WHEN i < 4 THEN '{"revision":1}' END, '', '',
           gen_random_uuid() FROM generate_series(1, 5000) AS i;
       ANALYZE`,
    );
    const audit = new AuditTable(postgresDialect());
    const plan = await databases.server.sql(
      `SET search_path = bunkms; EXPLAIN ${audit.latestChangeOf("'key-1'")}`,
      new URL(url).pathname.slice(1),
    );
    expect(plan).toContain('audit_last_changes');
    const ofStorage = await databases.server.sql(
      `SET search_path = bunkms; EXPLAIN ${audit.latestOfStorage("'9a2c4d6e-1b3f-4a5c-8d7e-0f1a2b3c4d5e'")}`,
      new URL(url).pathname.slice(1),
    );
    expect(ofStorage).toContain('audit_storages');
    const next = await databases.server.sql(
      `SET search_path = bunkms; EXPLAIN ${audit.storageAfter("''")}`,
      new URL(url).pathname.slice(1),
    );
    expect(next).toContain('audit_storages');
    await databases.forget(place);
  });

  it('finds records by an index, although it prepared its statements when there were few', async () => {
    const place = randomUUID();
    const url = await databases.url(place);
    const store = await openPostgresStore({ settings: settingsOf(url), warn: () => undefined });
    const issue = (from: number, to: number) =>
      databases.edit(
        place,
        `INSERT INTO audit (seq, time, severity, action, outcome, detail, prev_hash, hash, write_id)
           SELECT i, '', 'CRITICAL', 'token.issue', 'allowed', '{"family":"family-' || i || '"}', '', '', gen_random_uuid()
             FROM generate_series(${from}, ${to}) AS i`,
      );
    const rowsScanned = async () =>
      Number(
        await databases.server.sql(
          `SELECT seq_tup_read FROM pg_stat_user_tables WHERE schemaname = 'bunkms' AND relname = 'audit'`,
          new URL(url).pathname.slice(1),
        ),
      );
    const places = Array.from({ length: 50 }, (_, at) => ({ of: `family-${at + 1}`, after: 0 }));
    // The databases of tests are reused, with the space of removed rows.
    await databases.edit(place, 'TRUNCATE audit');
    await issue(1, 10);
    const before = await rowsScanned();
    await databases.edit(place, 'ANALYZE');
    // From the sixth use on, the server keeps one plan for all parameters.
    for (let use = 0; use < 8; use++) await store.listIssues('family', places, 10);
    await issue(11, 5_000);
    const found = await store.listIssues('family', places, 10);
    expect(found.map((records) => records.length)).toEqual(places.map(() => 1));
    // A session reports what it has read when it ends, which is after the pool has closed.
    await store.close();
    const sessions = `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bunkms' AND datname = current_database()`;
    await expect.poll(() => databases.server.sql(sessions, new URL(url).pathname.slice(1))).toBe('0');
    expect((await rowsScanned()) - before).toBeLessThan(5_000);
    await databases.forget(place);
  });

  filteredListConformance('PostgreSQL', async () => {
    const place = randomUUID();
    const settings = settingsOf(await databases.url(place));
    const store = await openPostgresStore({ settings, warn: () => undefined });
    await databases.edit(
      place,
      `INSERT INTO keys (name, id, type, state, version, revision, exportable, created_at, kek_ids, version_digests)
         SELECT chr(97 + i % 3) || '.' || lpad(to_hex(i * 37 % ${NAMES}), 6, '0'), 'id-' || i, 'aes-256', 'enabled', 1, 1, true,
           '2026-01-01T00:00:00.000Z', '[]', '' FROM generate_series(0, ${NAMES - 1}) AS i;
       INSERT INTO audit (seq, time, severity, action, outcome, actor, key, prev_hash, hash, write_id)
         SELECT i, to_char(to_timestamp(1700000000 + i) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
           CASE WHEN i % 9000 = 0 THEN 'CRITICAL' ELSE 'INFO' END, 'key.read', 'allowed', 'actor-' || (i % 2), 'k' || (i % 5), '', '',
           gen_random_uuid() FROM generate_series(1, ${RECORDS}) AS i;
       ANALYZE`,
    );
    return {
      store,
      [Symbol.asyncDispose]: async () => {
        await store.close();
        await databases.forget(place);
      },
    };
  });
});
