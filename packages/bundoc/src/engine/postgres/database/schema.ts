import { readFileSync } from 'node:fs';
import { createSchema, type Schema } from '@bundoc/shared/postgres/create-schema';
import type { Run } from '@bundoc/shared/postgres/run';
import type { Database } from './database.ts';

/**
 * The number of the schema (docs/formats/postgres-rows.md). It changes when builds of the former number
 * cannot work with the schema.
 */
const NUMBER = 14;
const TABLE = 'bundoc.migrations';

const SCHEMA: Schema = {
  table: TABLE,
  createTable: `CREATE SCHEMA IF NOT EXISTS bundoc; CREATE TABLE IF NOT EXISTS ${TABLE} (version integer PRIMARY KEY)`,
  // The same path from `src` and from `dist`.
  create: `${readFileSync(new URL('../../../../schema.sql', import.meta.url), 'utf8')}
    INSERT INTO ${TABLE} (version) VALUES (${NUMBER})`,
  /** `bundoc` in ASCII. */
  lock: BigInt('0x62756e646f63'),
  isCreated: async (run) => {
    const [row] = await run(`SELECT max(version) FROM ${TABLE}`);
    const found = row?.[0] ?? undefined;
    if (found === undefined || found === NUMBER) return found === NUMBER;
    throw new SchemaMismatch(
      `the database has schema ${String(found)} of another version of Bundoc, and this one has schema ${NUMBER}: export its projects with that version by bundoc export, start with an empty database, and import them`,
    );
  },
};

/** The database has the schema of another version. */
export class SchemaMismatch extends Error {
  override readonly name = 'SchemaMismatch';
}

/** Creates the schema in an empty database. @throws SchemaMismatch; AppError `storage_unavailable`. */
export async function prepareSchema(database: Database): Promise<void> {
  await database.withConnection((run: Run) => createSchema(run, SCHEMA));
}
