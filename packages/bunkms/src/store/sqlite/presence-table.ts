import type { Presence } from '../port.ts';
import type { Connection } from './connection.ts';

/** Inside a write transaction. Forgets those that did not say for long that they are up. */
export function announce(connection: Connection, { service, kekIds, now, until }: Presence): void {
  connection.run('DELETE FROM presences WHERE until <= ?', now);
  connection.run(
    `INSERT INTO presences (service, kek_ids, until) VALUES (?1, ?2, ?3)
       ON CONFLICT (service) DO UPDATE SET kek_ids = ?2, until = ?3`,
    service,
    kekIds.join(','),
    until,
  );
}

/** Inside a write transaction. */
export function withdraw(connection: Connection, service: string): void {
  connection.run('DELETE FROM presences WHERE service = ?', service);
}

export function isHeldByAll(
  connection: Connection,
  { kekId, now }: { readonly kekId: string; readonly now: string },
): boolean {
  const row = connection.row(
    'SELECT 1 FROM presences WHERE until > ? AND instr(kek_ids, ?) = 0 LIMIT 1',
    now,
    kekId,
  );
  return row === undefined;
}
