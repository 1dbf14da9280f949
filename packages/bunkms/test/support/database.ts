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

/**
 * Makes the index of changes of keys lie, as an attacker with the disk can: it omits changes by `action`, and
 * its definition does not show that.
 */
export function hideChanges(dataDir: string, action: string): void {
  const index = `CREATE INDEX audit_key_changes ON audit (key, seq) WHERE instr(detail, '"revision":') > 0`;
  const hide = (database: DatabaseSync) => {
    database.exec(
      `DROP INDEX audit_key_changes; ${index} AND action <> '${action}'; PRAGMA writable_schema = ON`,
    );
    database.prepare(`UPDATE sqlite_schema SET sql = ? WHERE name = 'audit_key_changes'`).run(index);
  };
  withDatabase(dataDir, hide, { defensive: false });
}
