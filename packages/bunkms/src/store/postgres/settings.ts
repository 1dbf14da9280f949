import type { ConnectionSettings } from '@bundoc/shared/postgres/connection';

/** The database and its timeouts, in milliseconds. */
export interface PostgresSettings extends Omit<ConnectionSettings, 'answerSlackMs' | 'applicationName'> {
  /** Connections of this process; one of them is reserved for writes. */
  readonly connectionsMax: number;
  /** How long a write waits for the lock that serializes the writes of all nodes. */
  readonly lockTimeoutMs: number;
  /** After this time, a node that hangs within a transaction no longer blocks the others. */
  readonly idleInTransactionTimeoutMs: number;
  /** Maximum time of one operation, including waits for others and retries after a broken connection. */
  readonly deadlineMs: number;
}
