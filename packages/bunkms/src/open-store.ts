import { accessSync, constants } from 'node:fs';
import { resolve } from 'node:path';
import { makeFolder } from '@bundoc/shared/files/make-folder';
import { printable } from '@bundoc/shared/logs/printable';
import { formatAddress } from '@bundoc/shared/postgres/address';
import { ConfigError } from '@bundoc/shared/process/config';
import { refuseFolderOf } from '@bundoc/shared/process/own-folder';
import type { KmsStore } from './store/port.ts';
import type { PostgresSettings } from './store/postgres/settings.ts';
import { openSqliteStore } from './store/sqlite/sqlite-store.ts';

/** The database of the store. */
export type StorageConfig =
  | {
      readonly kind: 'sqlite';
      /** How long one operation may take, including waits for other processes and the disk, milliseconds. */
      readonly deadlineMs: number;
    }
  | { readonly kind: 'postgres'; readonly settings: PostgresSettings };

export interface StoreLocation {
  readonly storage: StorageConfig;
  /**
   * The folder of SQLite, and with any store of the local files of a node. Created with mode 0700 if it does
   * not exist.
   */
  readonly dataDir: string;
}

export interface StoreWatcher {
  /** Called once when the store fails permanently. From then on every call fails. */
  readonly onCrash: (error: Error) => void;
  readonly warn: (message: string) => void;
}

/** What follows for tokens and keys that an operator may expect in it. */
export const OF_NEW_STORE = 'it knows no tokens or keys of an earlier one';

/** The name of the configured store for an operator. */
export function placeOf({ storage, dataDir }: StoreLocation): string {
  return storage.kind === 'sqlite' ? dataDir : formatAddress(storage.settings.address);
}

/** Opens the configured store. @throws AppError `storage_unavailable`, ConfigError. */
export async function openStore(
  { storage, dataDir }: StoreLocation,
  { onCrash, warn }: StoreWatcher,
): Promise<KmsStore> {
  refuseFolderOf('Bundoc', dataDir, 'BUNKMS_DATA_DIR');
  makeFolder(dataDir, 'BUNKMS_DATA_DIR');
  if (storage.kind === 'sqlite')
    return openSqliteStore({ dataDir, onCrash, deadlineMs: storage.deadlineMs }).catch((error: unknown) => {
      requireWritable(dataDir);
      throw error;
    });
  // Fifty modules, which a service on SQLite neither loads nor keeps in memory.
  const { openPostgresStore } = await import('./store/postgres/postgres-store.ts');
  return openPostgresStore({ settings: storage.settings, warn });
}

/** @throws ConfigError for a folder in which this user cannot write. */
function requireWritable(dataDir: string): void {
  try {
    accessSync(dataDir, constants.W_OK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const place = printable(resolve(dataDir));
    const reason = code === 'EROFS' ? 'its file system is read-only' : 'let this user write there';
    throw new ConfigError([`BUNKMS_DATA_DIR: the folder ${place} cannot be written (${code}): ${reason}`]);
  }
}
