import { StartRefused } from '../process/lifecycle.ts';
import { sqlStateOf } from './errors.ts';
import type { Run } from './run.ts';

/** The schema of a service. */
export interface Schema {
  /** The table that records that it was created, qualified by the schema. */
  readonly table: string;
  /** Statements that create the schema and this table, unless they exist. */
  readonly createTable: string;
  /** Statements that create everything else, and record that. */
  readonly create: string;
  /** The key of the advisory lock that the creating node holds. */
  readonly lock: bigint;
  /** Whether the table records the schema. @throws when this build cannot work with what it records. */
  isCreated(run: Run): Promise<boolean>;
}

const INSUFFICIENT_PRIVILEGE = '42501';
/** How long the statements may take, and wait for another node that creates the schema, milliseconds. */
const TIMEOUT_MS = 600_000;

/**
 * Creates a schema in one transaction under an advisory lock. Several nodes may start at once; one of them
 * creates it.
 *
 * If the schema exists, nothing is changed, so a role that can only read and write rows is sufficient.
 *
 * @throws StartRefused when the role may not create it; what {@link Schema.isCreated} and `run` throw.
 */
export async function createSchema(run: Run, schema: Schema): Promise<void> {
  const [row] = await run(`SELECT to_regclass('${schema.table}') IS NOT NULL`);
  if (row?.[0] === true && (await schema.isCreated(run))) return;
  // Each statement sees earlier commits: under the lock, those of the previous node.
  await run('BEGIN ISOLATION LEVEL READ COMMITTED');
  try {
    await run(`SET LOCAL lock_timeout = ${TIMEOUT_MS}; SET LOCAL statement_timeout = ${TIMEOUT_MS}`);
    await run(`SELECT pg_advisory_xact_lock(${schema.lock})`, TIMEOUT_MS);
    // Without checking first: a look-up by name may miss what another transaction has just created.
    await run(schema.createTable);
    if (!(await schema.isCreated(run))) await run(schema.create, TIMEOUT_MS);
    await run('COMMIT');
  } catch (error) {
    // If this fails too, the server rolls back when the connection closes.
    await run('ROLLBACK').catch(() => undefined);
    if (sqlStateOf(error) !== INSUFFICIENT_PRIVILEGE) throw error;
    throw new StartRefused(
      `PostgreSQL: ${(error as Error).message}; for the first start, let the role own the database (ALTER DATABASE … OWNER TO …)`,
      { cause: error },
    );
  }
}
