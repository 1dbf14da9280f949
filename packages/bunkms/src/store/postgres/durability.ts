import type { ClientBase } from 'pg';

interface Facts {
  readonly fsync: string;
  readonly full_page_writes: string;
  readonly standbys: string;
}

/** In which ways the server may lose what it has acknowledged; none for one that waits for its disk and for a standby's. */
export async function durabilityWarnings(client: ClientBase): Promise<string[]> {
  const { rows } = await client.query<Facts>(
    `SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_standby_names') AS standbys`,
  );
  const [facts] = rows;
  if (facts === undefined) return [];
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
  ];
}
