import { readdirSync, readFileSync } from 'node:fs';
import type { Run } from './run.ts';

/** A change of the schema. It must not change once released. */
export interface Migration {
  readonly version: number;
  readonly text: string;
}

/** The table in which a service records the applied migrations. */
export interface MigrationLedger<M extends Migration> {
  /** Its name, qualified by the schema. */
  readonly table: string;
  /** A statement that creates the schema and the table, unless they exist. */
  readonly create: string;
  /** A statement that records an applied migration. */
  insert(migration: M): string;
  /** The version of the database; 0 for an empty table. @throws when this build cannot work with it. */
  appliedVersion(run: Run): Promise<number>;
}

/** How long a migration may wait for that of another node, and how long it may take, milliseconds. */
const TIMEOUT_MS = 600_000;

/**
 * Migrates a schema to the version of this build. Each migration is applied once and in order, all in one
 * transaction under an advisory lock. Several nodes may start at once; one of them migrates.
 *
 * If the schema is current, nothing is changed, so a role that can only read and write rows is sufficient.
 *
 * @param lock the key of the advisory lock.
 * @throws what {@link MigrationLedger.appliedVersion} and `run` throw.
 */
export async function migrate<M extends Migration>(
  run: Run,
  ledger: MigrationLedger<M>,
  migrations: readonly M[],
  lock: bigint,
): Promise<void> {
  const known = migrations.at(-1)?.version ?? 0;
  if ((await hasTable(run, ledger)) && (await ledger.appliedVersion(run)) >= known) return;
  // Each statement sees earlier commits: under the lock, those of the previous node.
  await run('BEGIN ISOLATION LEVEL READ COMMITTED');
  try {
    await run(`SET LOCAL lock_timeout = ${TIMEOUT_MS}; SET LOCAL statement_timeout = ${TIMEOUT_MS}`);
    await run(`SELECT pg_advisory_xact_lock(${lock})`, TIMEOUT_MS);
    // Without checking first: a look-up by name may miss what another transaction has just created.
    await run(ledger.create);
    const applied = await ledger.appliedVersion(run);
    for (const migration of migrations) {
      if (migration.version <= applied) continue;
      await run(migration.text, TIMEOUT_MS);
      await run(ledger.insert(migration));
    }
    await run('COMMIT');
  } catch (error) {
    // If this fails too, the server rolls back when the connection closes.
    await run('ROLLBACK').catch(() => undefined);
    throw error;
  }
}

/** Reads the files `<number>-<what>.sql` of a folder. They must be numbered from 1 without gaps. */
export function readMigrations(folder: string): (Migration & { readonly name: string })[] {
  const names = readdirSync(folder).filter((name) => name.endsWith('.sql'));
  return names.sort().map((name, at) => {
    const version = Number(/^(\d+)-[a-z0-9-]+\.sql$/.exec(name)?.[1]);
    if (version !== at + 1) throw new Error(`${name} is not a migration: it needs the number ${at + 1}`);
    return { version, name, text: readFileSync(`${folder}/${name}`, 'utf8') };
  });
}

async function hasTable(run: Run, { table }: { readonly table: string }): Promise<boolean> {
  const [row] = await run(`SELECT to_regclass('${table}') IS NOT NULL`);
  return row?.[0] === true;
}
