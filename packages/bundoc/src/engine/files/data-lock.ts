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

const SQLITE_BUSY = 5;

/** Another process works on the same data folder. The message names it as well as is known. */
export class DataFolderInUse extends Error {
  override readonly name = 'DataFolderInUse';
}

/** A data folder that is this process's. */
export interface HeldLock extends Disposable {
  /**
   * The lock of the kernel says nothing on a file system that has none. So the note beside it is read again
   * before more is written.
   *
   * @throws DataFolderInUse when it is another's; a note that is missing says nothing.
   */
  requireHeld(): void;
}

/** Bytes of the note beside the lock. */
const NOTE_BYTES_MAX = 4_096;
const LOCK_FILE = 'lock.sqlite';
const NOTE_FILE = 'lock-holder.json';
/**
 * What SQLite keeps beside a database that is written to. The lock never is, so it would be another's, and
 * SQLite obeys it.
 */
const NEVER_OURS = ['-journal', '-wal', '-shm'].map((end) => `${LOCK_FILE}${end}`);

/**
 * Takes the data folder for this process. Node has no flock, and a file with a process id lies across
 * containers; an SQLite database in exclusive mode is locked by the kernel and is free the moment its process
 * dies, even by `kill -9`. The database is empty and stays so: SQLite is not given anything to read that was
 * put there.
 *
 * @throws DataFolderInUse when another process has it; Error when the lock itself cannot be used.
 */
export function lockDataFolder(directory: string): HeldLock {
  const path = join(directory, LOCK_FILE);
  let database: DatabaseSync | undefined;
  let folder: DataFolder | undefined;
  let note: string;
  try {
    folder = DataFolder.open(directory);
    requireEmptySync(folder, LOCK_FILE);
    for (const name of NEVER_OURS) removeSync(folder, name);
    database = new DatabaseSync(folder.entry(LOCK_FILE));
    // Nothing is ever written, and on a full disk there is no room for a rollback journal.
    database.exec(
      'PRAGMA journal_mode = MEMORY; PRAGMA busy_timeout = 0; PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE;',
    );
    note = leaveNote(folder);
  } catch (error) {
    database?.close();
    const holder = folder && describe(folder);
    folder?.[Symbol.dispose]();
    // A damaged lock or a disk that fails is another matter, and must not send anybody to look for a process.
    if ((error as { errcode?: number }).errcode !== SQLITE_BUSY)
      throw new Error(
        `the lock of the data folder cannot be taken: ${(error as Error).message} (${path}); the folder must be there, and Bundoc must be able to write to it`,
        { cause: error },
      );
    throw new DataFolderInUse(`the data folder is in use by another Bundoc process${holder}`, {
      cause: error,
    });
  }
  const held = { database, folder };
  return {
    requireHeld: () => {
      const present = noteIn(held.folder);
      if (present === undefined || present === note) return;
      throw new DataFolderInUse(
        `the data folder is in use by another Bundoc process${describe(held.folder)}`,
      );
    },
    [Symbol.dispose]: () => {
      if (!held.database.isOpen) return;
      takeNoteBack(held.folder);
      held.database.close();
      held.folder[Symbol.dispose]();
    },
  };
}

/**
 * Only for people: a full disk, or what somebody put in its place, must not keep the documents from being
 * read.
 */
function leaveNote(folder: DataFolder): string {
  const since = new Date().toISOString();
  const holder = JSON.stringify({ pid: process.pid, host: hostname(), since, id: randomUUID() });
  try {
    writeSmallSync(folder, NOTE_FILE, Buffer.from(holder));
  } catch (error) {
    if (codeOf(error) !== 'ENOSPC' && codeOf(error) !== UNSAFE_ENTRY) throw error;
  }
  return holder;
}

/** Undefined for one that is not there, is no whole note, or cannot be read. */
function noteIn(folder: DataFolder): string | undefined {
  try {
    const note = readSmallSync(folder, NOTE_FILE, NOTE_BYTES_MAX)?.toString();
    return note === undefined || typeof JSON.parse(note) !== 'object' ? undefined : note;
  } catch {
    return undefined;
  }
}

/** What cannot be removed is no note of this process. */
function takeNoteBack(folder: DataFolder): void {
  try {
    removeSync(folder, NOTE_FILE);
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
  }
}

/** Who wrote the note beside the lock. Only for people: the lock itself is the database. */
function describe(folder: DataFolder): string {
  try {
    const note = readSmallSync(folder, NOTE_FILE, NOTE_BYTES_MAX)?.toString() ?? '';
    const { pid, host, since } = JSON.parse(note) as Record<string, unknown>;
    return ` (process ${pid} on ${host}, since ${since})`;
  } catch {
    return '';
  }
}
