import { randomUUID } from 'node:crypto';
import { describeWithPostgres } from '@bundoc/shared/testing/postgres-tests';
import { afterAll, beforeAll } from 'vitest';
import { storeConformance } from '../src/store/conformance.ts';
import { kekConformance } from '../src/store/conformance-keks.ts';
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
});
