import { DatabaseSync, type DatabaseSyncOptions } from 'node:sqlite';
import { databasePathOf } from '../../src/store/sqlite.ts';
import { requireSqlite } from './storage.ts';

/** How long it is waited for a service that writes at the same moment, milliseconds. */
const BUSY_TIMEOUT_MS = 5_000;

/** Does to BunKMS's database what whoever has the disk can do, also while services have it open. @returns what `use` returns. */
export function withDatabase<T>(
  dataDir: string,
  use: (database: DatabaseSync) => T,
  options: DatabaseSyncOptions = {},
): T {
  requireSqlite();
  const database = new DatabaseSync(databasePathOf(dataDir), { timeout: BUSY_TIMEOUT_MS, ...options });
  try {
    return use(database);
  } finally {
    database.close();
  }
}
