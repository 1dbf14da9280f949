import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Database, Transaction } from './database.ts';

/** The same path from `src` and from `dist`. */
const FOLDER = fileURLToPath(new URL('../../../../migrations/', import.meta.url));
/** Of the advisory lock that one migrating node holds: `bundoc` in ASCII. */
const LOCK = 0x62756e646f63;

interface Migration {
  readonly version: number;
  readonly text: string;
  /** The oldest schema version whose builds still work once this is applied. */
  readonly worksFrom: number;
}

/** The first schema with storages. What was written before names no storage that holds the keys. */
const STORAGES_SINCE = 4;

/** The database has a schema that this build cannot work with. */
export class SchemaMismatch extends Error {
  override readonly name = 'SchemaMismatch';
}

/**
 * Brings the schema forward to what this build knows. Files are applied in their order, each once, all in one
 * transaction under an advisory lock, so that several nodes may start at once. Each says from which schema
 * version on builds still work with it: nodes of the former version go on while those of this one start.
 *
 * @throws SchemaMismatch for a database that a later build has changed so that this one cannot work with it,
 * or that has projects of a build from before there were storages.
 */
export async function migrate(
  database: Database,
  migrations: readonly Migration[] = readMigrations(),
): Promise<void> {
  const known = migrations.at(-1)?.version ?? 0;
  if (await isUpToDate(database, known)) return;
  await database.transaction(`SELECT pg_advisory_xact_lock(${LOCK})`, async (transaction) => {
    await transaction.run(
      `CREATE SCHEMA IF NOT EXISTS bundoc;
       CREATE TABLE IF NOT EXISTS bundoc.migrations (
         version integer PRIMARY KEY,
         works_from integer NOT NULL,
         applied_at timestamptz NOT NULL DEFAULT now()
       )`,
    );
    const applied = await appliedOf(transaction, known);
    if (applied > 0 && applied < STORAGES_SINCE && known >= STORAGES_SINCE)
      await requireNoProjects(transaction);
    for (const { version, text, worksFrom: from } of migrations) {
      if (version <= applied) continue;
      await transaction.run(text);
      await transaction.run(
        `INSERT INTO bundoc.migrations (version, works_from) VALUES (${version}, ${from})`,
      );
    }
    return true;
  });
}

/**
 * Asked first and without any change, so that a role that may only read and write rows is enough once the
 * schema is there.
 */
async function isUpToDate(database: Database, known: number): Promise<boolean> {
  const [exists] = await database.run("SELECT to_regclass('bundoc.migrations') IS NOT NULL");
  return exists?.[0]?.[0] === true && (await appliedOf(database, known)) >= known;
}

/** The schema version of the database. @throws SchemaMismatch when this build cannot work with it. */
async function appliedOf(database: Pick<Transaction, 'run'>, known: number): Promise<number> {
  const [rows] = await database.run(
    'SELECT coalesce(max(version), 0), coalesce(max(works_from), 0) FROM bundoc.migrations',
  );
  const [applied, worksFrom] = (rows?.[0] ?? [0, 0]) as [number, number];
  if (worksFrom > known)
    throw new SchemaMismatch(
      `the database has schema ${applied}, which needs a build of schema ${worksFrom} or later; this one knows ${known}`,
    );
  return applied;
}

async function requireNoProjects(transaction: Transaction): Promise<void> {
  const [rows] = await transaction.run('SELECT EXISTS (SELECT FROM bundoc.projects)');
  if (rows?.[0]?.[0] !== true) return;
  throw new SchemaMismatch(
    'the database has projects of an earlier build, which named no storage as the holder of their keys: export them with that build (bundoc export), start with an empty database, and import them',
  );
}

/**
 * The files `<number>-<what>.sql`; the first line of each is `-- works with builds from: <schema version>`.
 */
export function readMigrations(folder: string = FOLDER): Migration[] {
  const names = readdirSync(folder).filter((name) => name.endsWith('.sql'));
  return names.sort().map((name, at) => {
    const text = readFileSync(`${folder}/${name}`, 'utf8');
    const worksFrom = Number(/^-- works with builds from: (\d+)\n/.exec(text)?.[1]);
    const version = Number(/^(\d{3})-[a-z0-9-]+\.sql$/.exec(name)?.[1]);
    if (version !== at + 1 || !(worksFrom >= 1 && worksFrom <= version))
      throw new Error(
        `${name} is no migration: a number without a gap and a first line of its own are missing`,
      );
    return { version, text, worksFrom };
  });
}
