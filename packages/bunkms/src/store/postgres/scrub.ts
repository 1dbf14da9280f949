import { isTimeout } from '@bundoc/shared/postgres/errors';
import { storageError } from './failure.ts';
import type { Pools } from './pools.ts';

/** Maximum time of one VACUUM, milliseconds. */
const VACUUM_MS = 60_000;

/**
 * Vacuums the dead rows of earlier changes, if any. PostgreSQL overwrites neither them nor its log:
 * `docs/operations/scaling-bunkms.md` explains the effect on destroyed keys.
 *
 * @returns false when a transaction that can see them is still open, or another node is scrubbing.
 */
export async function scrub(pools: Pools): Promise<boolean> {
  const client = await pools.borrow();
  try {
    const { rows } = await client.query<{ wanted: number; blocked: boolean }>(
      `SELECT wanted, EXISTS (SELECT FROM pg_stat_activity
           WHERE pid <> pg_backend_pid() AND backend_xmin IS NOT NULL AND age(backend_xmin) >= age(xid::xid)) AS blocked
         FROM scrubs WHERE wanted > done`,
    );
    const [due] = rows;
    if (due === undefined) return true;
    if (due.blocked) return false;
    await client.query(`SET statement_timeout = ${VACUUM_MS}`);
    await client.query({ text: 'VACUUM key_versions', query_timeout: VACUUM_MS } as { text: string });
    await client.query('UPDATE scrubs SET done = greatest(done, $1)', [due.wanted]);
    return true;
  } catch (error) {
    if (isTimeout(error)) return false;
    throw storageError(error);
  } finally {
    // The connection has a different timeout now, or has failed.
    client.release(true);
  }
}
