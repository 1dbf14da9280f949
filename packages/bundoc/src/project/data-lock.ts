import { chmodSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

const SQLITE_BUSY = 5;

/** Another process works on the same data folder. The message names it as well as is known. */
export class DataFolderInUse extends Error {
  override readonly name = 'DataFolderInUse';
}

/**
 * Takes the data folder for this process. Node has no flock, and a file with a process id lies across containers; an
 * SQLite database in exclusive mode is locked by the kernel and is free the moment its process dies, even by
 * `kill -9`.
 *
 * @throws DataFolderInUse when another process has it; Error when the lock itself cannot be used.
 */
export function lockDataFolder(directory: string): Disposable {
  const path = join(directory, 'lock.sqlite');
  const holderPath = join(directory, 'lock-holder.json');
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(path);
    // Nothing is ever written, and on a full disk there is no room for a rollback journal.
    database.exec(
      'PRAGMA journal_mode = MEMORY; PRAGMA busy_timeout = 0; PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE;',
    );
  } catch (error) {
    database?.close();
    // A damaged lock or a disk that fails is another matter, and must not send anybody to look for a process.
    if ((error as { errcode?: number }).errcode !== SQLITE_BUSY)
      throw new Error(
        `the lock of the data folder cannot be taken: ${(error as Error).message} (${path}); the folder must be there, and Bundoc must be able to write to it`,
        { cause: error },
      );
    throw new DataFolderInUse(`the data folder is in use by another Bundoc process${describe(holderPath)}`, {
      cause: error,
    });
  }
  chmodSync(path, 0o600);
  const holder = JSON.stringify({ pid: process.pid, host: hostname(), since: new Date().toISOString() });
  try {
    writeFileSync(holderPath, holder, { mode: 0o600 });
  } catch (error) {
    // Only a note for people: a full disk must not keep the documents on it from being read.
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
  }
  return {
    [Symbol.dispose]: () => {
      if (!database.isOpen) return;
      rmSync(holderPath, { force: true });
      database.close();
    },
  };
}

/** Who wrote the note beside the lock. Only for people: the lock itself is the database. */
function describe(holderPath: string): string {
  try {
    const { pid, host, since } = JSON.parse(readFileSync(holderPath, 'utf8')) as Record<string, unknown>;
    return ` (process ${pid} on ${host}, since ${since})`;
  } catch {
    return '';
  }
}
