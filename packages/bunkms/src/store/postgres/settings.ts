import type { ConnectionSettings } from '@bundoc/shared/postgres/connection';

/** Where the database is and how long it is waited for. Times in milliseconds. */
export interface PostgresSettings extends Omit<ConnectionSettings, 'answerSlackMs' | 'applicationName'> {
  /** Connections of this process; one of them is kept for writes. */
  readonly connectionsMax: number;
  /** How long a write waits for its turn among those of all nodes. */
  readonly lockTimeoutMs: number;
  /** After this a node that stopped in the midst of a transaction no longer holds up the others. */
  readonly idleInTransactionTimeoutMs: number;
  /** How long one operation may take, with its wait for others and its tries after a broken connection. */
  readonly deadlineMs: number;
}
