import { close as closeCallback, constants, open as openCallback, write as writeCallback } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { AppError } from '@bundoc/shared/errors';
import { type Disk, piecesOf } from './disk.ts';
import { FilesystemSync } from './filesystem-sync.ts';
import { WriteThread } from './write-thread.ts';

const FILE_MODE = 0o600;
const DIRECTORY_MODE = 0o700;

/** One for the process: document files of all projects. */
const writeThread = new WriteThread({ fileMode: FILE_MODE, directoryMode: DIRECTORY_MODE });

const filesystemSync = new FilesystemSync();
/** Files from which on the whole file system is synced at once. */
const SYNC_ALL_FROM = 128;

/** The real disk, by `node:fs`. Files and folders are for the service's own user alone. */
export const nodeDisk: Disk = {
  read: (path) => guarded(() => absentAs(undefined, readFile(path))),

  list: (directory) => guarded(() => absentAs(undefined, readdir(directory))),

  makeDirectory: (path) =>
    guarded(async () => {
      try {
        await mkdir(path, { mode: DIRECTORY_MODE });
        return true;
      } catch (error) {
        if (codeOf(error) === 'EEXIST') return false;
        throw error;
      }
    }),

  createFile: (path, content) =>
    guarded(async () => {
      await using file = await open(path, 'wx', FILE_MODE);
      let end = 0;
      for await (const piece of piecesOf(content)) {
        await writeFully(file, piece, end);
        end += piece.length;
      }
      await file.sync();
    }),

  rename: (from, to) => guarded(() => rename(from, to)),

  remove: (path) =>
    guarded(() =>
      absentAs(
        false,
        unlink(path).then(() => true),
      ),
    ),

  removeTree: (path) => guarded(() => rm(path, { recursive: true, force: true })),

  syncDirectory: (path) =>
    guarded(async () => {
      await using directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
      await directory.sync();
    }),

  openFile: (path) =>
    guarded(async () => {
      // Each write is as good as one with an `fdatasync` behind it, in one trip to the pool of threads instead of two.
      const file = await openDescriptor(path, constants.O_RDWR | constants.O_DSYNC);
      return {
        writeDurably: (offset, bytes) => writeWhole(file, bytes, offset),
        close: () => guarded(() => closeDescriptor(file)),
      };
    }),

  writeFiles: async (files) => {
    const outcomes = await writeThread.write(files);
    return outcomes.map((error) => error && diskError(error));
  },

  syncFiles: (paths) =>
    guarded(async () => {
      const [first] = paths;
      if (first !== undefined && paths.length >= SYNC_ALL_FROM && (await filesystemSync.sync(dirname(first))))
        return;
      await forEachAtOnce(paths, (path) => syncFile(path, constants.O_RDONLY));
      const directories = [...new Set(paths.map((path) => dirname(path)))];
      await forEachAtOnce(directories, (path) => syncFile(path, constants.O_RDONLY | constants.O_DIRECTORY));
    }),
};

const openDescriptor = promisify(openCallback);
const closeDescriptor = promisify(closeCallback);

/** By callback, not by a `FileHandle`: that makes a dozen promises for each write, and this one is made for each frame. */
function writeWhole(file: number, content: Buffer, offset: number): Promise<void> {
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

async function writeFully(file: FileHandle, content: Buffer, offset: number): Promise<void> {
  let written = 0;
  while (written < content.length) {
    const { bytesWritten } = await file.write(content, written, content.length - written, offset + written);
    written += bytesWritten;
  }
}

/** Files that are synced side by side; more does not help a disk. */
const SYNCS_AT_ONCE = 8;

async function syncFile(path: string, flags: number): Promise<void> {
  const file = await absentAs(undefined, open(path, flags));
  if (file === undefined) return;
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

async function forEachAtOnce(paths: readonly string[], task: (path: string) => Promise<void>): Promise<void> {
  const left = paths.values();
  await Promise.all(
    Array.from({ length: SYNCS_AT_ONCE }, async () => {
      for (const path of left) await task(path);
    }),
  );
}

async function absentAs<T, A>(absent: A, operation: Promise<T>): Promise<T | A> {
  try {
    return await operation;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return absent;
    throw error;
  }
}

async function guarded<T>(operation: () => Promise<T>): Promise<T> {
  try {
    return await operation();
  } catch (error) {
    throw diskError(error);
  }
}

function diskError(error: unknown): AppError {
  const code = codeOf(error);
  return new AppError(code === 'ENOSPC' || code === 'EDQUOT' ? 'disk_full' : 'storage_unavailable', {
    cause: error,
  });
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}
