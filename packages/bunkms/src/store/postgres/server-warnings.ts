import type { ClientBase } from 'pg';

interface Facts {
  readonly fsync: string;
  readonly full_page_writes: string;
  readonly standbys: string;
  readonly now_ms: number;
}

/**
 * How far the clocks of a node and its database may be apart before that is worth a warning, milliseconds.
 */
const APART_MS = 5_000;

/**
 * In which ways the server may lose what it has acknowledged, none for one that waits for its disk and for a
 * standby's; and whether its clock is another one than ours.
 *
 * @param nowMs of this node's wall clock.
 */
export async function serverWarnings(client: ClientBase, nowMs: number): Promise<string[]> {
  const { rows } = await client.query<Facts>(
    `SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_standby_names') AS standbys,
       floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms`,
  );
  const [facts] = rows;
  if (facts === undefined) return [];
  const aheadS = Math.round((nowMs - facts.now_ms) / 1_000);
  return [
    ...(facts.fsync === 'on'
      ? []
      : ['PostgreSQL runs with fsync off: it may lose everything with the power']),
    ...(facts.full_page_writes === 'on'
      ? []
      : ['PostgreSQL runs with full_page_writes off: a crash may tear its pages']),
    ...(facts.standbys.trim() === ''
      ? [
          'PostgreSQL acknowledges before a standby has the write: with the loss of the primary, records of keys that were released may be lost',
        ]
      : []),
    ...(Math.abs(aheadS) * 1_000 < APART_MS
      ? []
      : [
          `the clock of this node is ${Math.abs(aheadS)} s ${aheadS > 0 ? 'ahead of' : 'behind'} PostgreSQL's: deletions that are due and the ends of leases go by it`,
        ]),
  ];
}
