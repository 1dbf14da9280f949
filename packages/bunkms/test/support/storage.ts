import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { TestRunner } from 'vitest';
import { openStore, type StorageConfig } from '../../src/open-store.ts';
import type { KmsStore } from '../../src/store/port.ts';
import { databasePathOf } from '../../src/store/sqlite/sqlite-store.ts';

export const PATIENT_SQLITE: StorageConfig = { kind: 'sqlite', deadlineMs: PATIENT_MS };

/** The kind of storage that test services use for their stores, by data folder. */
export interface TestStorage {
  readonly kind: 'sqlite' | 'postgres';
  of(dataDir: string): Promise<StorageConfig>;
  /** Whether bytes occur anywhere in the storage of that store. */
  holds(dataDir: string, bytes: Buffer): Promise<boolean>;
  /**
   * Edits the content of a store like an attacker, even while services have it open, and ignores foreign
   * keys. Bytes and their type have SQLite's syntax: `x'00'`, `BLOB`.
   */
  edit(dataDir: string, sql: string): Promise<void>;
  /** Call it when the folder is removed, and its store unusable. */
  forget(dataDir: string): Promise<void>;
}

const sqlite: TestStorage = {
  kind: 'sqlite',
  of: () => Promise.resolve(PATIENT_SQLITE),
  holds: async (dataDir, bytes) =>
    readdirSync(dataDir).some((file) => readFileSync(join(dataDir, file)).includes(bytes)),
  edit: async (dataDir, sql) => {
    const options = { timeout: PATIENT_MS, enableForeignKeyConstraints: false };
    const database = new DatabaseSync(databasePathOf(dataDir), options);
    try {
      database.exec(sql);
    } finally {
      database.close();
    }
  },
  forget: () => Promise.resolve(),
};

let storage = sqlite;

/** The storage of the running tests. */
export function testStorage(): TestStorage {
  return storage;
}

/** Sets the storage for subsequent tests; SQLite when undefined. */
export function useStorage(other: TestStorage | undefined): void {
  storage = other ?? sqlite;
}

/** Opens the store of a data folder like a separate process. */
export async function openTestStore(dataDir: string): Promise<KmsStore> {
  const location = { storage: await storage.of(dataDir), dataDir };
  return openStore(location, { onCrash: () => undefined, warn: () => undefined });
}

/** Skips a test that inspects or changes SQLite's files when the store is another one. */
export function requireSqlite(): void {
  if (storage !== sqlite) TestRunner.getCurrentTest()?.context.skip('it inspects the files of SQLite');
}
