import { readFileSync } from 'node:fs';
import { createSchema } from '@bundoc/shared/postgres/create-schema';
import type { Run } from '@bundoc/shared/postgres/run';
import { requireSchema, SCHEMA_VERSION } from '../schema-version.ts';
import { SCHEMA } from './pools.ts';

const TABLE = `${SCHEMA}.migrations`;

/**
 * Creates the schema in an empty database. Several nodes may start at once.
 *
 * @throws Error when the database has another schema.
 */
export async function prepareSchema(run: Run): Promise<void> {
  await createSchema(run, {
    table: TABLE,
    createTable: `CREATE SCHEMA IF NOT EXISTS ${SCHEMA};
      CREATE TABLE IF NOT EXISTS ${TABLE} (number integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())`,
    // The same path from `src` and from `dist`.
    create: `${readFileSync(new URL('../../../migrations/schema.sql', import.meta.url), 'utf8')}
      INSERT INTO ${TABLE} (number) VALUES (${SCHEMA_VERSION})`,
    /** "bunkms" and 1, in hex. */
    lock: BigInt('0x62756e6b6d7301'),
    isCreated: async () => {
      const [row] = await run(`SELECT max(number) FROM ${TABLE}`);
      const found = row?.[0] ?? undefined;
      if (found !== undefined) requireSchema(Number(found));
      return found !== undefined;
    },
  });
}
