import { randomUUID } from 'node:crypto';
import { describeWithPostgres } from '@bundoc/shared/testing/postgres-tests';
import { afterAll, beforeAll } from 'vitest';
import { storeConformance } from '../src/store/conformance.ts';
import { kekConformance } from '../src/store/conformance-keks.ts';
import { filteredListConformance, NAMES, RECORDS } from '../src/store/conformance-lists.ts';
import { openPostgresStore } from '../src/store/postgres.ts';
import { PostgresDatabases, settingsOf } from './support/postgres.ts';

describeWithPostgres('a store in PostgreSQL', () => {
  let databases: PostgresDatabases;
  beforeAll(async () => {
    databases = await PostgresDatabases.start();
  });
  afterAll(() => databases[Symbol.asyncDispose]());

  for (const conformance of [storeConformance, kekConformance])
    conformance('PostgreSQL', async () => {
      const place = randomUUID();
      const settings = settingsOf(await databases.url(place));
      return {
        open: () => openPostgresStore({ settings, warn: () => undefined }),
        dispose: () => databases.forget(place),
      };
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
