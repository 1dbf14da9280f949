import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, readFile, rename, unlink } from 'node:fs/promises';
import { AppError } from '@bundoc/shared/errors';
import type { Disk } from './disk.ts';

const FILE_MODE = 0o600;
const DIRECTORY_MODE = 0o700;

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
      await writeFully(file, content);
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

  syncDirectory: (path) =>
    guarded(async () => {
      await using directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
      await directory.sync();
    }),
};

async function writeFully(file: FileHandle, content: Buffer): Promise<void> {
  let written = 0;
  while (written < content.length) {
    const { bytesWritten } = await file.write(content, written, content.length - written, written);
    written += bytesWritten;
  }
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
    const code = codeOf(error);
    throw new AppError(code === 'ENOSPC' || code === 'EDQUOT' ? 'disk_full' : 'storage_unavailable', {
      cause: error,
    });
  }
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}
