import type { TaskClaim } from '../port.ts';
import type { Connection } from './connection.ts';

/** Inside a write transaction. @returns false when another holder has the task. */
export function claimTask(connection: Connection, { task, holder, now, until }: TaskClaim): boolean {
  const changed = connection.run(
    `INSERT INTO claims (task, holder, until) VALUES (?1, ?2, ?4) ON CONFLICT (task) DO UPDATE SET holder = ?2, until = ?4
      WHERE holder = ?2 OR until <= ?3 OR until > ?4`,
    task,
    holder,
    now,
    until,
  );
  return changed === 1;
}

/** Inside a write transaction. */
export function releaseTask(
  connection: Connection,
  { task, holder }: Pick<TaskClaim, 'task' | 'holder'>,
): void {
  connection.run('DELETE FROM claims WHERE task = ? AND holder = ?', task, holder);
}
