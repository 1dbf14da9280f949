import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { codeOf, DataFolder, UNSAFE_ENTRY } from '@bundoc/shared/files/data-folder';
import {
  readSmallSync,
  removeSync,
  requireEmptySync,
  writeSmallSync,
} from '@bundoc/shared/files/small-files';
import { StartRefused } from '@bundoc/shared/process/lifecycle';
import { FIRST_FILES } from '@bundoc/shared/process/own-folder';

const SQLITE_BUSY = 5;

/** Another process uses the same data folder. The message identifies it if possible, and says what to do. */
export class DataFolderInUse extends StartRefused {
  override readonly name = 'DataFolderInUse';
}

/** Exclusive use of a data folder. */
export interface HeldLock extends Disposable {
  /**
   * A file system without locks grants the kernel lock to everybody, so the note beside it is checked again
   * before further writes.
   *
   * @throws DataFolderInUse when the note is another process's; a missing note is accepted.
   */
  requireHeld(): void;
}

/** Maximum length of the note beside the lock, bytes. */
const NOTE_BYTES_MAX = 4_096;
const LOCK_FILE = FIRST_FILES.Bundoc;
const NOTE_FILE = 'lock-holder.json';
/** What the lock leaves in a folder. */
export const LOCK_FILES: readonly string[] = [LOCK_FILE, NOTE_FILE];
/**
 * Files that SQLite keeps beside a database it writes to, and obeys. The lock is never written to, so such a
 * file is foreign.
 */
const FOREIGN_FILES = ['-journal', '-wal', '-shm'].map((end) => `${LOCK_FILE}${end}`);

/**
 * Locks the data folder for this process. Node has no flock, and a process id in a file is meaningless across
 * containers. The kernel locks an SQLite database in exclusive mode, and frees it the moment the process
 * dies, even by `kill -9`. The database stays empty, and SQLite never reads a file that was put in its place.
 *
 * @throws DataFolderInUse when another process has it; Error when the lock itself is unusable.
 */
export function lockDataFolder(directory: string): HeldLock {
  const path = join(directory, LOCK_FILE);
  let database: DatabaseSync | undefined;
  let folder: DataFolder | undefined;
  let note: string;
  try {
    folder = DataFolder.open(directory);
    requireEmptySync(folder, LOCK_FILE);
    for (const name of FOREIGN_FILES) removeSync(folder, name);
    database = new DatabaseSync(folder.entry(LOCK_FILE));
    // Nothing is ever written: a full disk has no room for a rollback journal.
    database.exec(
      'PRAGMA journal_mode = MEMORY; PRAGMA busy_timeout = 0; PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE;',
    );
    note = writeNote(folder);
  } catch (error) {
    database?.close();
    const holder = folder && describe(folder);
    folder?.[Symbol.dispose]();
    // A damaged lock or a failing disk is another error: the operator must not look for a process.
    if ((error as { errcode?: number }).errcode !== SQLITE_BUSY)
      throw new Error(
        `the lock of the data folder cannot be taken: ${(error as Error).message} (${path}); the folder must be there, and Bundoc must be able to write to it`,
        { cause: error },
      );
    throw new DataFolderInUse(inUse(directory, holder ?? ''), { cause: error });
  }
  const held = { database, folder };
  return {
    requireHeld: () => {
      const present = readNote(held.folder);
      if (present === undefined || present === note) return;
      throw new DataFolderInUse(inUse(directory, describe(held.folder)));
    },
    [Symbol.dispose]: () => {
      if (!held.database.isOpen) return;
      removeNote(held.folder);
      held.database.close();
      held.folder[Symbol.dispose]();
    },
  };
}

/**
 * The note is informational: a full disk or a foreign file in its place must not make the documents
 * unreadable.
 */
function writeNote(folder: DataFolder): string {
  const since = new Date().toISOString();
  const holder = JSON.stringify({ pid: process.pid, host: hostname(), since, id: randomUUID() });
  try {
    writeSmallSync(folder, NOTE_FILE, Buffer.from(holder));
  } catch (error) {
    if (codeOf(error) !== 'ENOSPC' && codeOf(error) !== UNSAFE_ENTRY) throw error;
  }
  return holder;
}

/** Undefined when the note is missing, incomplete or unreadable. */
function readNote(folder: DataFolder): string | undefined {
  try {
    const note = readSmallSync(folder, NOTE_FILE, NOTE_BYTES_MAX)?.toString();
    return note === undefined || typeof JSON.parse(note) !== 'object' ? undefined : note;
  } catch {
    return undefined;
  }
}

/** A note that cannot be removed is not from this process. */
function removeNote(folder: DataFolder): void {
  try {
    removeSync(folder, NOTE_FILE);
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
  }
}

function inUse(directory: string, holder: string): string {
  return `the data folder ${directory} is in use by another Bundoc process${holder}: stop that process, or name another folder in BUNDOC_DATA_DIR`;
}

/** Who wrote the note beside the lock. Informational: the database is the lock. */
function describe(folder: DataFolder): string {
  try {
    const note = readSmallSync(folder, NOTE_FILE, NOTE_BYTES_MAX)?.toString() ?? '';
    const { pid, host, since } = JSON.parse(note) as Record<string, unknown>;
    return ` (process ${pid} on ${host}, since ${since})`;
  } catch {
    return '';
  }
}
