import { type FileHandle, open } from 'node:fs/promises';
import { codeOf, type DataFolder, SAFE_FLAGS, UnsafeEntry } from '../files/data-folder.ts';

/** Opens an entry below the folder without following links. @throws UnsafeEntry; the system's error. */
export async function openEntry(folder: DataFolder, below: string, flags: number): Promise<FileHandle> {
  let handle: FileHandle;
  try {
    handle = await open(folder.pathOf(below), flags | SAFE_FLAGS);
  } catch (error) {
    throw folder.openError(below, error);
  }
  if (folder.isAt(handle.fd, below)) return handle;
  await handle.close();
  throw new UnsafeEntry(below, 'lies behind a symbolic link');
}

/** @returns `absent` when there is no such entry. */
export async function absentAs<T, U>(absent: U, promise: Promise<T>): Promise<T | U> {
  try {
    return await promise;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return absent;
    throw error;
  }
}
