import {
  close as closeCallback,
  closeSync,
  constants,
  fstat as fstatCallback,
  fstatSync,
  fsync as fsyncCallback,
  open as openCallback,
  read as readCallback,
  readSync,
  type Stats,
  write as writeCallback,
} from 'node:fs';
import { lstat, readdir, rmdir, unlink } from 'node:fs/promises';
import { promisify } from 'node:util';
import { AppError } from '@bundoc/shared/contract/app-error';
import {
  codeOf,
  type DataFolder,
  FOLDER_FLAGS,
  getName,
  parentOf,
  requireFile,
  SAFE_FLAGS,
  UNSAFE_ENTRY,
  UnsafeEntry,
} from '@bundoc/shared/files/data-folder';
import { forEachConcurrently } from '@bundoc/shared/runtime/concurrently';
import { AT_ONCE, type ReadableFile } from './disk.ts';

/**
 * Maximum size of a folder that is listed: on ext4, some four million of the longest names that Bundoc uses.
 */
const FOLDER_BYTES_MAX = 268_435_456;
/** Maximum depth of a folder that is removed with its content; a project has four levels. */
const TREE_DEPTH_MAX = 64;
/** Concurrent file reads. More open files would only wait for the pool's four threads. */
export const READS_AT_ONCE = 16;
const READ_FLAGS = constants.O_RDONLY | SAFE_FLAGS;

const openDescriptor = promisify(openCallback);
export const closeDescriptor = promisify(closeCallback);
const fsync = promisify(fsyncCallback);
const fstat = promisify(fstatCallback) as (descriptor: number) => Promise<Stats>;

/** Entries of a data folder, by their paths below it. */
export class Entries {
  readonly #folder: DataFolder;
  #reading = 0;
  /** Starts of reads that wait for their turn. */
  readonly #toRead: (() => void)[] = [];

  constructor(folder: DataFolder) {
    this.#folder = folder;
  }

  /** Uses callbacks: a `FileHandle` makes a dozen promises for each read, and every document is read here. */
  read(below: string, bytesMax: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const path = this.#folder.pathOf(below);
      const begin = () =>
        this.#read(path, below, bytesMax, (error, content) => {
          const next = this.#toRead.shift();
          if (next === undefined) this.#reading--;
          else next();
          if (content === undefined) reject(error);
          else resolve(content);
        });
      if (this.#reading === READS_AT_ONCE) {
        this.#toRead.push(begin);
        return;
      }
      this.#reading++;
      begin();
    });
  }

  #read(
    path: string,
    below: string,
    bytesMax: number,
    done: (error: unknown, content?: Buffer) => void,
  ): void {
    const readFrom = (descriptor: number): void =>
      readWhole(descriptor, below, bytesMax, (error, content) => {
        // The file was only read, so closing it does not block.
        closeSync(descriptor);
        done(error, content);
      });
    openCallback(path, READ_FLAGS, (error, descriptor) => {
      const opened =
        error === null
          ? this.#atPlace(descriptor, below, READ_FLAGS)
          : this.#instead(below, READ_FLAGS, error);
      opened.then(readFrom, done);
    });
  }

  /** Uses callbacks, as {@link read} does: every catalog is read here. */
  openToRead(below: string, bytesMax: number): Promise<ReadableFile> {
    return new Promise((resolve, reject) => {
      openCallback(this.#folder.pathOf(below), READ_FLAGS, (error, descriptor) => {
        const opened =
          error === null
            ? this.#atPlace(descriptor, below, READ_FLAGS)
            : this.#instead(below, READ_FLAGS, error);
        opened.then((file) => resolve(readableFile(file, below, bytesMax))).catch(reject);
      });
    });
  }

  async readStart(below: string, bytes: number): Promise<Buffer> {
    const descriptor = await this.openFile(below, constants.O_RDONLY);
    try {
      const start = Buffer.allocUnsafeSlow(bytes);
      return start.subarray(0, readSync(descriptor, start, 0, bytes, 0));
    } finally {
      await closeDescriptor(descriptor);
    }
  }

  async size(below: string): Promise<number> {
    // A hint: nothing is read or opened because of it.
    return (await lstat(this.#folder.pathOf(below))).size;
  }

  async list(below: string): Promise<string[]> {
    return this.withFolder(below, async (descriptor) => {
      if (fstatSync(descriptor).size > FOLDER_BYTES_MAX)
        throw new UnsafeEntry(below, 'has more names than can be read');
      return await readdir(this.#folder.entriesOf(descriptor, below));
    });
  }

  /**
   * @param action receives a path of the entry in which only the last component may be a link, and the path
   *   below the data folder.
   */
  within<T>(below: string, action: (entry: string, below: string) => Promise<T>): Promise<T> {
    if (below === '') throw new UnsafeEntry(below, 'is no entry of itself');
    const parent = parentOf(below);
    return this.withFolder(parent, (descriptor) =>
      action(`${this.#folder.entriesOf(descriptor, parent)}/${getName(below)}`, below),
    );
  }

  async withFolder<T>(below: string, action: (descriptor: number) => Promise<T>): Promise<T> {
    const descriptor = await this.#open(below, FOLDER_FLAGS);
    try {
      return await action(descriptor);
    } finally {
      closeSync(descriptor);
    }
  }

  async openFile(below: string, flags: number): Promise<number> {
    const descriptor = await this.#open(below, flags);
    try {
      requireFile(below, await fstat(descriptor), Number.POSITIVE_INFINITY);
      return descriptor;
    } catch (error) {
      await closeDescriptor(descriptor);
      throw error;
    }
  }

  /**
   * Syncs files of one folder, then the folder. Absent files are skipped. The folder's place is checked once
   * for all.
   */
  syncFiles(parent: string, files: readonly string[]): Promise<void> {
    return this.withFolder(parent, async (folder) => {
      const entries = this.#folder.entriesOf(folder, parent);
      for (const below of files)
        await absentAs(undefined, this.#syncFile(`${entries}/${getName(below)}`, below));
      await fsync(folder);
    });
  }

  /** @param entry a path in which only the last component may be a link. */
  async #syncFile(entry: string, below: string): Promise<void> {
    let descriptor: number;
    try {
      descriptor = await openDescriptor(entry, READ_FLAGS);
    } catch (error) {
      throw this.#folder.openError(below, error);
    }
    try {
      requireFile(below, fstatSync(descriptor), Number.POSITIVE_INFINITY);
      await fsync(descriptor);
    } finally {
      await closeDescriptor(descriptor);
    }
  }

  syncFolder(below: string): Promise<void> {
    return this.withFolder(below, (descriptor) => fsync(descriptor));
  }

  /** @param entry a path in which only the last component may be a link. */
  async removeTree(entry: string, below: string, depth: number): Promise<void> {
    if (!(await lstat(entry)).isDirectory()) return unlink(entry);
    if (depth > TREE_DEPTH_MAX) throw new UnsafeEntry(below, 'lies too deep');
    const descriptor = await openDescriptor(entry, FOLDER_FLAGS);
    try {
      const entries = this.#folder.entriesOf(descriptor, below);
      const names = await readdir(entries, { withFileTypes: true });
      const [folders, files] = [
        names.filter((name) => name.isDirectory()),
        names.filter((name) => !name.isDirectory()),
      ];
      await forEachConcurrently(files, AT_ONCE, ({ name }) =>
        absentAs(undefined, unlink(`${entries}/${name}`)),
      );
      // One at a time, because each holds a descriptor.
      for (const { name } of folders)
        await absentAs(undefined, this.removeTree(`${entries}/${name}`, `${below}/${name}`, depth + 1));
    } finally {
      await closeDescriptor(descriptor);
    }
    await rmdir(entry);
  }

  async #open(below: string, flags: number): Promise<number> {
    let descriptor: number;
    try {
      descriptor = await openDescriptor(this.#folder.pathOf(below), flags | SAFE_FLAGS);
    } catch (error) {
      return await this.#instead(below, flags, error);
    }
    return await this.#atPlace(descriptor, below, flags);
  }

  async #instead(below: string, flags: number, error: unknown): Promise<number> {
    return this.#folder.openInstead(below, flags, error);
  }

  /** The descriptor if it refers to the entry; otherwise a new one for the entry. */
  async #atPlace(descriptor: number, below: string, flags: number): Promise<number> {
    let isAt = false;
    try {
      isAt = this.#folder.isAt(descriptor, below);
    } finally {
      if (!isAt) await closeDescriptor(descriptor);
    }
    return isAt ? descriptor : this.#folder.walkSync(below, flags);
  }
}

type Read = (error: unknown, content?: Buffer) => void;

/** Reads a file up to the size that it has when it is opened. */
function readWhole(file: number, below: string, bytesMax: number, done: Read): void {
  let content: Buffer;
  try {
    // The open has just loaded the inode, so this does not block.
    const stats = fstatSync(file);
    requireFile(below, stats, bytesMax);
    content = Buffer.allocUnsafeSlow(stats.size);
  } catch (error) {
    done(error);
    return;
  }
  readFully(file, content, 0, (error, bytes) => {
    // Fewer when the file was truncated during the read.
    if (bytes === undefined) done(error);
    else done(null, bytes === content.length ? content : content.subarray(0, bytes));
  });
}

/** Takes over the descriptor. */
function readableFile(file: number, below: string, bytesMax: number): ReadableFile {
  try {
    // The open has just loaded the inode, so this does not block.
    const stats = fstatSync(file);
    requireFile(below, stats, bytesMax);
    return {
      bytes: stats.size,
      readInto: (target, offset) =>
        new Promise((resolve, reject) => {
          readFully(file, target, offset, (error, bytes) => {
            if (bytes === undefined) reject(diskError(error));
            else resolve(bytes);
          });
        }),
      // The file was only read, so closing it does not block.
      [Symbol.dispose]: () => closeSync(file),
    };
  } catch (error) {
    closeSync(file);
    throw error;
  }
}

/** Reads until the target is full or the file ends. */
function readFully(
  file: number,
  target: Buffer,
  offset: number,
  done: (error: unknown, bytes?: number) => void,
): void {
  const readRest = (at: number): void => {
    if (at === target.length) {
      done(null, at);
      return;
    }
    readCallback(file, target, at, target.length - at, offset + at, (failure, bytesRead) => {
      if (failure !== null) done(failure);
      else if (bytesRead === 0) done(null, at);
      else readRest(at + bytesRead);
    });
  };
  readRest(0);
}

/** Uses a callback: a `FileHandle` makes a dozen promises for each write, and every frame is written here. */
export function writeWhole(file: number, content: Buffer, offset: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const writeRest = (done: number): void => {
      writeCallback(file, content, done, content.length - done, offset + done, (error, bytesWritten) => {
        if (error !== null) reject(diskError(error));
        else if (done + bytesWritten < content.length) writeRest(done + bytesWritten);
        else resolve();
      });
    };
    writeRest(0);
  });
}

export async function absentAs<T, A>(absent: A, operation: Promise<T>): Promise<T | A> {
  try {
    return await operation;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return absent;
    throw error;
  }
}

export function diskError(error: unknown): AppError {
  const code = codeOf(error);
  // An error from the write thread has only the code.
  if (code === UNSAFE_ENTRY) return new AppError('project_damaged', { cause: error });
  return new AppError(code === 'ENOSPC' || code === 'EDQUOT' ? 'disk_full' : 'storage_unavailable', {
    cause: error,
  });
}
