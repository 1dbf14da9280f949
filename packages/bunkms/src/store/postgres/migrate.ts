import { fileURLToPath } from 'node:url';
import { type MigrationLedger, migrate, readMigrations } from '@bundoc/shared/postgres/migrate';
import type { Run } from '@bundoc/shared/postgres/run';
import { earlierBuildError } from '../earlier-build.ts';
import { SCHEMA } from './pools.ts';

/** The same path from `src` and from `dist`. */
const FOLDER = fileURLToPath(new URL('../../../migrations/', import.meta.url));
/** Key of the advisory lock that nodes take to migrate ("bunkms" and 1, in hex). */
const LOCK = BigInt('0x62756e6b6d7301');
const TABLE = `${SCHEMA}.migrations`;

/**
 * Migrates the schema. Several nodes may start at once.
 *
 * @throws Error when a newer release or an earlier build has written to this database.
 */
export async function migrateStore(run: Run): Promise<void> {
  const migrations = readMigrations(FOLDER);
  const ledger: MigrationLedger<(typeof migrations)[number]> = {
    table: TABLE,
    create: `CREATE SCHEMA IF NOT EXISTS ${SCHEMA};
      CREATE TABLE IF NOT EXISTS ${TABLE} (number integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())`,
    insert: ({ version, name }) => `INSERT INTO ${TABLE} (number, name) VALUES (${version}, '${name}')`,
    appliedVersion: async () => {
      const applied = await run(`SELECT number, name FROM ${TABLE} ORDER BY number`);
      const foreign = applied.find(([, name], at) => at < migrations.length && name !== migrations[at]?.name);
      if (foreign !== undefined) throw earlierBuildError(`migration ${String(foreign[1])}`);
      const latest = Number(applied.at(-1)?.[0] ?? 0);
      if (latest > migrations.length)
        throw new Error(`the database has schema ${latest}, this release knows ${migrations.length}`);
      return latest;
    },
  };
  await migrate(run, ledger, migrations, LOCK);
}
