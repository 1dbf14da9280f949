import { readFileSync } from 'node:fs';
import { createSchema } from '@bundoc/shared/postgres/create-schema';
import type { Run } from '@bundoc/shared/postgres/run';
import { earlierBuildError } from '../earlier-build.ts';
import { SCHEMA } from './pools.ts';

const NAME = '0001-watched-schema.sql';
const TABLE = `${SCHEMA}.migrations`;

/**
 * Creates the schema in an empty database. Several nodes may start at once.
 *
 * @throws Error when a newer release or an earlier build has written to this database.
 */
export async function migrateStore(run: Run): Promise<void> {
  await createSchema(run, {
    table: TABLE,
    createTable: `CREATE SCHEMA IF NOT EXISTS ${SCHEMA};
      CREATE TABLE IF NOT EXISTS ${TABLE} (number integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())`,
    // The same path from `src` and from `dist`.
    create: `${readFileSync(new URL(`../../../migrations/${NAME}`, import.meta.url), 'utf8')}
      INSERT INTO ${TABLE} (number, name) VALUES (1, '${NAME}')`,
    /** "bunkms" and 1, in hex. */
    lock: BigInt('0x62756e6b6d7301'),
    isCreated: async () => {
      const [first, ...later] = await run(`SELECT number, name FROM ${TABLE} ORDER BY number`);
      if (first !== undefined && first[1] !== NAME) throw earlierBuildError(`migration ${String(first[1])}`);
      const latest = later.at(-1)?.[0];
      if (latest !== undefined)
        throw new Error(`the database has schema ${String(latest)}, this release knows 1`);
      return first !== undefined;
    },
  });
}
