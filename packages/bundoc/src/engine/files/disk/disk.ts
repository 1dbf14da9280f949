import { randomBytes } from 'node:crypto';
import { dirname, join } from 'node:path';
import { AppError } from '@bundoc/shared/contract/app-error';

/**
 * All access to a data folder goes through this port, so that tests can inject faults. Paths are below the
 * data folder. The storage is untrusted: no symbolic link is followed, and only regular files and folders are
 * opened.
 *
 * Errors of every method, as AppError:
 * - `disk_full`: ENOSPC, EDQUOT;
 * - `project_damaged`: an entry that is not a regular file or folder, or larger than expected; its cause
 *   names the entry;
 * - `storage_unavailable`: anything else.
 */
export interface Disk {
  /**
   * The content of a file; undefined when there is none.
   *
   * @param bytesMax maximum size of this kind of file; a larger one is damage, and is not read.
   */
  read(path: string, bytesMax: number): Promise<Buffer | undefined>;
  /**
   * Opens a file that is read in pieces; undefined when there is none. The caller disposes of it.
   *
   * @param bytesMax maximum size of this kind of file; a larger one is damage, and is not read.
   */
  openToRead(path: string, bytesMax: number): Promise<ReadableFile | undefined>;
  /** The first bytes of a file, fewer if it is shorter; undefined when there is none. */
  readStart(path: string, bytes: number): Promise<Buffer | undefined>;
  /** The size of a file in bytes; undefined when there is none. */
  size(path: string): Promise<number | undefined>;
  /** Names in a folder, unordered; undefined when there is none. */
  list(directory: string): Promise<string[] | undefined>;
  /**
   * Creates a folder unless it exists. Durable once its parent is synced. True when it was created; a link to
   * a folder is an error.
   */
  makeDirectory(path: string): Promise<boolean>;
  /** Creates a new file and syncs its content. Its name is durable once its folder is synced. */
  createFile(path: string, content: FileContent): Promise<void>;
  /** Atomically replaces `to`. Durable once the folder of `to` is synced. */
  rename(from: string, to: string): Promise<void>;
  /** Removes a file. Durable once its folder is synced. False when there was none. */
  remove(path: string): Promise<boolean>;
  /**
   * Removes a folder with all its content, or a file. Links are removed, not followed. Durable once the
   * parent folder is synced; an interruption may leave any part.
   */
  removeTree(path: string): Promise<void>;
  /** Makes all names in a folder durable. */
  syncDirectory(path: string): Promise<void>;
  /** Opens an existing file for writing. */
  openFile(path: string): Promise<DiskFile>;
  /**
   * Writes or removes small files, in any order. Missing folders are created; their parents exist.
   * Syncs nothing.
   *
   * @param files each path once. Their contents must not change before the promise is resolved.
   * @returns for each file undefined, or why its content may be incomplete. Rejects only because of a
   * defect.
   */
  writeFiles(files: readonly FileChange[]): Promise<readonly (AppError | undefined)[]>;
  /**
   * Makes the contents of these files, the names in their folders, and then the names in `folders` durable.
   * Missing files are skipped.
   */
  syncFiles(paths: readonly string[], folders?: readonly string[]): Promise<void>;
}

/** The folder for unfinished files, below the data folder. */
export const TMP_FOLDER = 'tmp';
/** Bytes of the largest catalog and of the largest file of indexes: more than six million documents. */
export const LARGE_FILE_BYTES_MAX = 1_073_741_824;
/** Concurrent operations; a disk gains nothing from more. */
export const AT_ONCE = 8;

/** A write of a file's whole content, or its removal when the content is undefined. */
export interface FileChange {
  readonly path: string;
  readonly content: Buffer | undefined;
}

/** One buffer, or a series of them, so that a large content is never completely in memory. */
export type FileContent = Buffer | AsyncIterable<Buffer>;

/** The pieces of a content. */
export async function* piecesOf(content: FileContent): AsyncGenerator<Buffer> {
  if (Buffer.isBuffer(content)) yield content;
  else yield* content;
}

/** An open file that is only read. Not for concurrent use. */
export interface ReadableFile extends Disposable {
  /** Its size when it was opened. */
  readonly bytes: number;
  /**
   * Fills the target with the bytes from `offset` on.
   *
   * @returns how many it has read: fewer than the target holds only at the end of the file.
   */
  readInto(target: Buffer, offset: number): Promise<number>;
}

/** An open file. Not for concurrent use. */
export interface DiskFile {
  /**
   * Overwrites bytes within the file's length, and makes them durable like `fdatasync`. After a rejection,
   * any part of them may have been written, durably or not.
   */
  writeDurably(offset: number, bytes: Buffer): Promise<void>;
  close(): Promise<void>;
}

/**
 * Replaces `path` with `content`, durably and atomically: a new file in `temporaryDirectory` is written,
 * synced and renamed, then the folder is synced.
 */
export async function replaceFile(
  disk: Disk,
  temporaryDirectory: string,
  path: string,
  content: FileContent,
): Promise<void> {
  const temporary = join(temporaryDirectory, randomBytes(12).toString('hex'));
  try {
    await disk.createFile(temporary, content);
    await disk.rename(temporary, path);
  } catch (error) {
    await disk.remove(temporary).catch(() => false);
    throw error;
  }
  try {
    await disk.syncDirectory(dirname(path));
  } catch (error) {
    throw new AppError('storage_unavailable', { cause: error });
  }
}

/** Creates a folder below an existing one, durably. */
export async function makeDirectoryDurably(disk: Disk, path: string): Promise<void> {
  await disk.makeDirectory(path);
  await disk.syncDirectory(dirname(path));
}

/** Empties a folder of temporary files, including foreign content. */
export async function removeLeftovers(disk: Disk, directory: string): Promise<void> {
  for (const name of (await disk.list(directory)) ?? []) await disk.removeTree(join(directory, name));
}
