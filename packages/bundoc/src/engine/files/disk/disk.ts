import { randomBytes } from 'node:crypto';
import { dirname, join } from 'node:path';
import { AppError } from '@bundoc/shared/contract/app-error';

/**
 * All access to a data folder goes through this port, so that a fault-injecting disk can stand in. Paths are
 * below the data folder. Who can write to the storage is not trusted: no symbolic link is followed, and only
 * regular files and folders are opened.
 *
 * Errors of every method: AppError `disk_full` (ENOSPC, EDQUOT); `project_damaged` for an entry that is no
 * regular file, no folder, or larger than expected, whose cause names it; `storage_unavailable` (anything
 * else).
 */
export interface Disk {
  /**
   * Whole content of a file, or undefined when there is none.
   *
   * @param bytesMax of a file of this kind; a larger one is damage, and is not read.
   */
  read(path: string, bytesMax: number): Promise<Buffer | undefined>;
  /** The first bytes of a file, fewer of a shorter one; undefined when there is none. */
  readStart(path: string, bytes: number): Promise<Buffer | undefined>;
  /** Bytes of a file, or undefined when there is none. */
  size(path: string): Promise<number | undefined>;
  /** Names in a folder, unordered, or undefined when there is none. */
  list(directory: string): Promise<string[] | undefined>;
  /**
   * Makes a folder unless it exists. Durable once its parent is synced. True when it was made; a link to a
   * folder is none.
   */
  makeDirectory(path: string): Promise<boolean>;
  /** Makes a new file and syncs its content. Its name is durable once its folder is synced. */
  createFile(path: string, content: FileContent): Promise<void>;
  /** Replaces `to`, atomically. Durable once the folder of `to` is synced. */
  rename(from: string, to: string): Promise<void>;
  /** Removes a file. Durable once its folder is synced. False when there was none. */
  remove(path: string): Promise<boolean>;
  /**
   * Removes a folder with everything in it, or a file; a link goes, and what it leads to stays. Durable once
   * its own folder is synced; cut short, any part may be left.
   */
  removeTree(path: string): Promise<void>;
  /** Makes all names of a folder durable. */
  syncDirectory(path: string): Promise<void>;
  /** Opens an existing file to write into it. */
  openFile(path: string): Promise<DiskFile>;
  /**
   * Puts small files in place, or removes them, in any order; a folder is made if need be, its parent exists.
   * Syncs nothing.
   *
   * @param files each path once. Their contents must not change before the promise is resolved.
   * @returns for each file undefined, or why its content may be there in part only. Never rejects but for a
   * defect.
   */
  writeFiles(files: readonly FileChange[]): Promise<readonly (AppError | undefined)[]>;
  /**
   * Makes the contents of these files, the names in their folders, and then the names in `folders` durable.
   * Files that are gone are skipped.
   */
  syncFiles(paths: readonly string[], folders?: readonly string[]): Promise<void>;
}

/** Bytes of the largest catalog and of the largest file of indexes: more than six million documents. */
export const LARGE_FILE_BYTES_MAX = 1_073_741_824;
/** Operations side by side; more does not help a disk. */
export const AT_ONCE = 8;

/** What is to become of a file: its whole content, or undefined when it is to be gone. */
export interface FileChange {
  readonly path: string;
  readonly content: Buffer | undefined;
}

/** In one piece, or piece by piece so that a large one is never in memory as a whole. */
export type FileContent = Buffer | AsyncIterable<Buffer>;

/** The pieces of a content. */
export async function* piecesOf(content: FileContent): AsyncGenerator<Buffer> {
  if (Buffer.isBuffer(content)) yield content;
  else yield* content;
}

/** An open file. Not for concurrent use. */
export interface DiskFile {
  /**
   * Overwrites bytes within the file's length, and makes them durable as `fdatasync` does. Once rejected, any
   * part of them may be there, durably or not.
   */
  writeDurably(offset: number, bytes: Buffer): Promise<void>;
  close(): Promise<void>;
}

/**
 * Puts `content` at `path`, durably and all or nothing: a new file in `temporaryDirectory`, its content
 * synced, renamed, the folder synced.
 *
 * @throws AppError `disk_full` when nothing has changed; `storage_unavailable` when it is not known which of
 * the two contents is durable.
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

/** Makes a folder below an existing one, durably. */
export async function makeDirectoryDurably(disk: Disk, path: string): Promise<void> {
  await disk.makeDirectory(path);
  await disk.syncDirectory(dirname(path));
}

/** Empties a folder of temporary files that a crash left, and of whatever else was put there. */
export async function removeLeftovers(disk: Disk, directory: string): Promise<void> {
  for (const name of (await disk.list(directory)) ?? []) await disk.removeTree(join(directory, name));
}
