import { readdirSync, readFileSync } from 'node:fs';
import type { Run } from './run.ts';

/** A change of the schema. Once released, it stays as it is. */
export interface Migration {
  readonly version: number;
  readonly text: string;
}

/** The table in which a service records the migrations of its database. */
export interface MigrationLedger<M extends Migration> {
  /** Its name, with that of the schema. */
  readonly table: string;
  /** Makes the schema and the table, unless they are there. */
  readonly create: string;
  /** Records a migration that was applied. */
  insert(migration: M): string;
  /** The version of the database; 0 for an empty table. @throws when this build cannot work with it. */
  appliedVersion(run: Run): Promise<number>;
}

/** How long a migration waits for another node's, and may take itself, milliseconds. */
const TIMEOUT_MS = 600_000;

/**
 * Brings a schema forward to what this build knows. Each migration is applied once and in order, all in one
 * transaction under an advisory lock: several nodes may start at once, and one of them migrates.
 *
 * It changes nothing when there is nothing to do, so a role that only reads and writes rows is enough then.
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
  // Each statement sees what was committed before it: behind the lock, what the node before did.
  await run('BEGIN ISOLATION LEVEL READ COMMITTED');
  try {
    await run(`SET LOCAL lock_timeout = ${TIMEOUT_MS}; SET LOCAL statement_timeout = ${TIMEOUT_MS}`);
    await run(`SELECT pg_advisory_xact_lock(${lock})`, TIMEOUT_MS);
    // Not asked for first: in one transaction a look-up by name may not see what another one has made since.
    await run(ledger.create);
    const applied = await ledger.appliedVersion(run);
    for (const migration of migrations) {
      if (migration.version <= applied) continue;
      await run(migration.text, TIMEOUT_MS);
      await run(ledger.insert(migration));
    }
    await run('COMMIT');
  } catch (error) {
    // Should it fail as well, the server rolls back when the connection ends.
    await run('ROLLBACK').catch(() => undefined);
    throw error;
  }
}

/** Reads the files `<number>-<what>.sql` of a folder, which are numbered from 1 without a gap. */
export function readMigrations(folder: string): (Migration & { readonly name: string })[] {
  const names = readdirSync(folder).filter((name) => name.endsWith('.sql'));
  return names.sort().map((name, at) => {
    const version = Number(/^(\d+)-[a-z0-9-]+\.sql$/.exec(name)?.[1]);
    if (version !== at + 1) throw new Error(`${name} is no migration: it needs the number ${at + 1}`);
    return { version, name, text: readFileSync(`${folder}/${name}`, 'utf8') };
  });
}

async function hasTable(run: Run, { table }: { readonly table: string }): Promise<boolean> {
  const [row] = await run(`SELECT to_regclass('${table}') IS NOT NULL`);
  return row?.[0] === true;
}
