import { mkdirSync } from 'node:fs';
import type { KmsStore } from './store/port.ts';
import { openPostgresStore } from './store/postgres/postgres-store.ts';
import type { PostgresSettings } from './store/postgres/settings.ts';
import { openSqliteStore } from './store/sqlite/sqlite-store.ts';

/** What the store is kept in. */
export type StorageConfig =
  | {
      readonly kind: 'sqlite';
      /**
       * How long one operation may take, its wait for other processes and for the disk included,
       * milliseconds.
       */
      readonly deadlineMs: number;
    }
  | { readonly kind: 'postgres'; readonly settings: PostgresSettings };

export interface StoreLocation {
  readonly storage: StorageConfig;
  /** Of SQLite; and, with any store, of what a node keeps for itself. Made, mode 0700, if it is not there. */
  readonly dataDir: string;
}

export interface StoreWatcher {
  /** Told once when the store fails for good; every call fails from then on. */
  readonly onCrash: (error: Error) => void;
  readonly warn: (message: string) => void;
}

/** Opens the store that the configuration names. @throws AppError `storage_unavailable`, ConfigError. */
export function openStore(
  { storage, dataDir }: StoreLocation,
  { onCrash, warn }: StoreWatcher,
): Promise<KmsStore> {
  if (storage.kind === 'sqlite') return openSqliteStore({ dataDir, onCrash, deadlineMs: storage.deadlineMs });
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  return openPostgresStore({ settings: storage.settings, warn });
}
