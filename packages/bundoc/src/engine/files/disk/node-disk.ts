import { constants } from 'node:fs';
import { type FileHandle, lstat, mkdir, open, rename, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import {
  type Containment,
  codeOf,
  DataFolder,
  parentOf,
  SAFE_FLAGS,
  UnsafeEntry,
} from '@bundoc/shared/files/data-folder';
import { forEachConcurrently } from '@bundoc/shared/runtime/concurrently';
import type { FileContent } from './disk.ts';
import { AT_ONCE, type Disk, piecesOf } from './disk.ts';
import { absentAs, closeDescriptor, diskError, Entries, writeWhole } from './entries.ts';
import { FilesystemSync } from './filesystem-sync.ts';
import { WriteThread } from './write-thread.ts';

const FILE_MODE = 0o600;
const DIRECTORY_MODE = 0o700;

/** One for the process: a failed write is reported once for the whole file system. */
const filesystemSync = new FilesystemSync();
/** Number of files from which the whole file system is synced at once. */
const SYNC_ALL_FROM = 128;

/** The real disk, open until it is disposed; no operation may be running then. */
export type NodeDisk = Disk & AsyncDisposable;

/**
 * Opens an existing data folder with `node:fs`. Only the service's user can access new files and folders.
 *
 * @param containment that of this system by default; tests pass the other.
 * @throws the system's error when there is no such folder.
 */
export function openNodeDisk(directory: string, containment?: Containment): NodeDisk {
  const folder = DataFolder.open(directory, containment);
  const writeThread = new WriteThread({
    fileMode: FILE_MODE,
    directoryMode: DIRECTORY_MODE,
    folder: folder.shared,
  });
  const entries = new Entries(folder);
  return {
    read: (path, bytesMax) => guarded(() => absentAs(undefined, entries.read(folder.below(path), bytesMax))),

    openToRead: (path, bytesMax) =>
      guarded(() => absentAs(undefined, entries.openToRead(folder.below(path), bytesMax))),

    readStart: (path, bytes) =>
      guarded(() => absentAs(undefined, entries.readStart(folder.below(path), bytes))),

    size: (path) => guarded(() => absentAs(undefined, entries.size(folder.below(path)))),

    list: (path) => guarded(() => absentAs(undefined, entries.list(folder.below(path)))),

    makeDirectory: (path) => guarded(() => entries.within(folder.below(path), makeDirectory)),

    createFile: (path, content) =>
      guarded(() => entries.within(folder.below(path), (entry) => createFile(entry, content))),

    rename: (from, to) =>
      guarded(() =>
        entries.within(folder.below(from), (source) =>
          entries.within(folder.below(to), async (target) => {
            await rename(source, target);
            if ((await lstat(target)).isDirectory()) writeThread.forgetFolders();
          }),
        ),
      ),

    remove: (path) =>
      guarded(() =>
        absentAs(
          false,
          entries.within(folder.below(path), (entry) => unlink(entry).then(() => true)),
        ),
      ),

    removeTree: (path) =>
      guarded(() =>
        absentAs(
          undefined,
          entries.within(folder.below(path), (entry, below) => entries.removeTree(entry, below, 0)),
        ),
      ).finally(() => writeThread.forgetFolders()),

    syncDirectory: (path) => guarded(() => entries.syncFolder(folder.below(path))),

    openFile: (path) =>
      guarded(async () => {
        // Each write is as durable as one followed by `fdatasync`, with one call to the thread pool instead
        // of two.
        const file = await entries.openFile(folder.below(path), constants.O_RDWR | constants.O_DSYNC);
        return {
          writeDurably: (offset, bytes) => writeWhole(file, bytes, offset),
          close: () => guarded(() => closeDescriptor(file)),
        };
      }),

    writeFiles: async (files) => {
      const outcomes = await writeThread.write(
        files.map(({ path, content }) => ({ path: folder.below(path), content })),
      );
      return outcomes.map((error) => error && diskError(error));
    },

    syncFiles: (paths, folders = []) => guarded(() => syncFiles(folder, entries, paths, folders)),

    [Symbol.asyncDispose]: async () => {
      await writeThread[Symbol.asyncDispose]();
      folder[Symbol.dispose]();
    },
  };
}

/** @returns false when it exists. */
async function makeDirectory(entry: string, below: string): Promise<boolean> {
  try {
    await mkdir(entry, { mode: DIRECTORY_MODE });
    return true;
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error;
    if ((await lstat(entry)).isDirectory()) return false;
    throw new UnsafeEntry(below, 'is no folder');
  }
}

async function createFile(entry: string, content: FileContent): Promise<void> {
  await using file = await open(entry, CREATE_FLAGS, FILE_MODE);
  let end = 0;
  for await (const piece of piecesOf(content)) {
    await writeFully(file, piece, end);
    end += piece.length;
  }
  await file.sync();
}

async function syncFiles(
  folder: DataFolder,
  entries: Entries,
  paths: readonly string[],
  folders: readonly string[],
): Promise<void> {
  const [first] = paths;
  if (first !== undefined && paths.length >= SYNC_ALL_FROM) {
    const directory = dirname(first);
    // Checks that the path is a folder, so that the sync cannot reach another file system.
    await entries.withFolder(folder.below(directory), async () => undefined);
    if (await filesystemSync.sync(directory)) return;
  }
  const files = Map.groupBy(
    paths.map((path) => folder.below(path)),
    parentOf,
  );
  await forEachConcurrently(files, AT_ONCE, ([directory, below]) =>
    absentAs(undefined, entries.syncFiles(directory, below)),
  );
  const own = new Set(folders.map((path) => folder.below(path)));
  await forEachConcurrently(own, AT_ONCE, (below) => entries.syncFolder(below));
}

const CREATE_FLAGS = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | SAFE_FLAGS;

async function writeFully(file: FileHandle, content: Buffer, offset: number): Promise<void> {
  let written = 0;
  while (written < content.length) {
    const { bytesWritten } = await file.write(content, written, content.length - written, offset + written);
    written += bytesWritten;
  }
}

async function guarded<T>(operation: () => Promise<T>): Promise<T> {
  try {
    return await operation();
  } catch (error) {
    throw diskError(error);
  }
}
