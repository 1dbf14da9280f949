import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { TestRunner } from 'vitest';
import { openStore, type StorageConfig } from '../../src/open-store.ts';
import type { KmsStore } from '../../src/store/port.ts';
import { databasePathOf } from '../../src/store/sqlite/sqlite-store.ts';

export const PATIENT_SQLITE: StorageConfig = { kind: 'sqlite', deadlineMs: PATIENT_MS };

/** Where services of tests keep their stores, by their data folders. */
export interface TestStorage {
  of(dataDir: string): Promise<StorageConfig>;
  /** Whether bytes are anywhere that a key of that store may be in. */
  holds(dataDir: string, bytes: Buffer): Promise<boolean>;
  /**
   * Changes what is in a store, as somebody who has it may, also while services have it open, and whatever
   * the tables refer to. Bytes and their type are written as SQLite has them: `x'00'`, `BLOB`.
   */
  edit(dataDir: string, sql: string): Promise<void>;
  /** The folder is gone, and its store unusable. */
  forget(dataDir: string): Promise<void>;
}

const sqlite: TestStorage = {
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

/** Of the tests of this file that run now. */
export function testStorage(): TestStorage {
  return storage;
}

/** Lets the tests that are run from now on have another one; SQLite when undefined. */
export function useStorage(other: TestStorage | undefined): void {
  storage = other ?? sqlite;
}

/** Opens the store of a data folder, as a process of its own would. */
export async function openTestStore(dataDir: string): Promise<KmsStore> {
  const location = { storage: await storage.of(dataDir), dataDir };
  return openStore(location, { onCrash: () => undefined, warn: () => undefined });
}

/** Ends a test that looks into SQLite's files, or changes what is in them, when the store is another one. */
export function requireSqlite(): void {
  if (storage !== sqlite) TestRunner.getCurrentTest()?.context.skip('it looks into the files of SQLite');
}
