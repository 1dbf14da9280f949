import { fileURLToPath } from 'node:url';
import {
  type Migration as AnyMigration,
  type MigrationLedger,
  migrate as migrateSchema,
  readMigrations as readFiles,
} from '@bundoc/shared/postgres/migrate';
import type { Run } from '@bundoc/shared/postgres/run';
import type { Database } from './database.ts';

/** The same path from `src` and from `dist`. */
const FOLDER = fileURLToPath(new URL('../../../../migrations/', import.meta.url));
/** The key of the advisory lock that one migrating node holds: `bundoc` in ASCII. */
const LOCK = BigInt('0x62756e646f63');

interface Migration extends AnyMigration {
  /** The oldest schema version whose builds still work after this migration. */
  readonly worksFrom: number;
}

/** The first schema with storage ids. Earlier projects do not name the storage that holds their keys. */
const STORAGES_SINCE = 4;

/** The database has a schema that this build cannot work with. */
export class SchemaMismatch extends Error {
  override readonly name = 'SchemaMismatch';
}

/**
 * Migrates the schema to the version of this build. Files are applied in order, each once, all in one
 * transaction under an advisory lock, so several nodes may start at once. Each file states the oldest schema
 * version whose builds still work with it. So nodes of the previous version keep running while those of this
 * one start.
 *
 * @throws SchemaMismatch for a database that a later build has changed incompatibly, or that has projects
 *   from before storage ids.
 */
export async function migrate(
  database: Database,
  migrations: readonly Migration[] = readMigrations(),
): Promise<void> {
  await database.withConnection((run) => migrateSchema(run, ledgerOf(migrations), migrations, LOCK));
}

function ledgerOf(migrations: readonly Migration[]): MigrationLedger<Migration> {
  const known = migrations.at(-1)?.version ?? 0;
  return {
    table: 'bundoc.migrations',
    create: `CREATE SCHEMA IF NOT EXISTS bundoc;
      CREATE TABLE IF NOT EXISTS bundoc.migrations (
        version integer PRIMARY KEY,
        works_from integer NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
      )`,
    insert: ({ version, worksFrom }) =>
      `INSERT INTO bundoc.migrations (version, works_from) VALUES (${version}, ${worksFrom})`,
    appliedVersion: async (run) => {
      const [row = [0, 0]] = await run(
        'SELECT coalesce(max(version), 0), coalesce(max(works_from), 0) FROM bundoc.migrations',
      );
      const [applied, worksFrom] = row as [number, number];
      if (worksFrom > known)
        throw new SchemaMismatch(
          `the database has schema ${applied}, which needs a build of schema ${worksFrom} or later; this one knows ${known}`,
        );
      if (applied > 0 && applied < STORAGES_SINCE && known >= STORAGES_SINCE) await requireNoProjects(run);
      return applied;
    },
  };
}

async function requireNoProjects(run: Run): Promise<void> {
  const [row] = await run('SELECT EXISTS (SELECT FROM bundoc.projects)');
  if (row?.[0] !== true) return;
  throw new SchemaMismatch(
    'the database has projects of an earlier build, which named no storage as the holder of their keys: export them with that build (bundoc export), start with an empty database, and import them',
  );
}

/** The migrations; the first line of each file is `-- works with builds from: <schema version>`. */
export function readMigrations(folder: string = FOLDER): Migration[] {
  return readFiles(folder).map(({ version, name, text }) => {
    const worksFrom = Number(/^-- works with builds from: (\d+)\n/.exec(text)?.[1]);
    if (!(worksFrom >= 1 && worksFrom <= version))
      throw new Error(`${name} is no migration: its first line says nothing of builds`);
    return { version, text, worksFrom };
  });
}
