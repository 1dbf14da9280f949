import { DatabaseSync, type DatabaseSyncOptions } from 'node:sqlite';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { databasePathOf } from '../../src/store/sqlite/sqlite-store.ts';
import { requireSqlite } from './storage.ts';

/**
 * Modifies BunKMS's database like an attacker with the disk, even while services have it open. @returns the
 * result of `use`.
 */
export function withDatabase<T>(
  dataDir: string,
  use: (database: DatabaseSync) => T,
  options: DatabaseSyncOptions = {},
): T {
  requireSqlite();
  const database = new DatabaseSync(databasePathOf(dataDir), { timeout: PATIENT_MS, ...options });
  try {
    return use(database);
  } finally {
    database.close();
  }
}
