import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Migration, type MigrationLedger, migrate } from '@bundoc/shared/postgres/migrate';
import type { Run } from '@bundoc/shared/postgres/run';
import { requireSchema, SCHEMA_VERSION } from '../schema-version.ts';
import { SCHEMA } from './pools.ts';

/** The same path from `src` and from `dist`. */
const FILE = fileURLToPath(new URL('../../../migrations/schema.sql', import.meta.url));
/** Key of the advisory lock that nodes take to create the schema ("bunkms" and 1, in hex). */
const LOCK = BigInt('0x62756e6b6d7301');
const TABLE = `${SCHEMA}.migrations`;

/**
 * Creates the schema in an empty database. Several nodes may start at once.
 *
 * @throws Error when the database has another schema.
 */
export async function createSchema(run: Run): Promise<void> {
  const ledger: MigrationLedger<Migration> = {
    table: TABLE,
    create: `CREATE SCHEMA IF NOT EXISTS ${SCHEMA};
      CREATE TABLE IF NOT EXISTS ${TABLE} (number integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())`,
    insert: ({ version }) => `INSERT INTO ${TABLE} (number) VALUES (${version})`,
    appliedVersion: async () => {
      const [row] = await run(`SELECT coalesce(max(number), 0) FROM ${TABLE}`);
      const version = Number(row?.[0]);
      if (version !== 0) requireSchema(version);
      return version;
    },
  };
  await migrate(run, ledger, [{ version: SCHEMA_VERSION, text: readFileSync(FILE, 'utf8') }], LOCK);
}
