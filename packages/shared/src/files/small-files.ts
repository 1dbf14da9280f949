import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { codeOf, type DataFolder, requireFile, SAFE_FLAGS } from './data-folder.ts';

// Synchronous access to small files in a data folder, for BunKMS, and for Bundoc before its file writer runs.

const FILE_MODE = 0o600;

/**
 * @returns undefined when there is none.
 * @throws UnsafeEntry; the system's error otherwise.
 */
export function readSmallSync(folder: DataFolder, below: string, bytesMax: number): Buffer | undefined {
  const file = openToRead(folder, below);
  if (file === undefined) return undefined;
  try {
    const stats = fstatSync(file);
    requireFile(below, stats, bytesMax);
    const content = Buffer.alloc(stats.size);
    return content.subarray(0, readSync(file, content));
  } finally {
    closeSync(file);
  }
}

/**
 * The first bytes of a file of any length, fewer when it is shorter.
 *
 * @returns undefined when there is none.
 * @throws UnsafeEntry; the system's error otherwise.
 */
export function readStartSync(folder: DataFolder, below: string, bytes: number): Buffer | undefined {
  const file = openToRead(folder, below);
  if (file === undefined) return undefined;
  try {
    requireFile(below, fstatSync(file), Number.POSITIVE_INFINITY);
    const content = Buffer.alloc(bytes);
    return content.subarray(0, readSync(file, content, 0, bytes, 0));
  } finally {
    closeSync(file);
  }
}

/** @returns undefined when there is none. */
function openToRead(folder: DataFolder, below: string): number | undefined {
  try {
    return folder.openSync(below, constants.O_RDONLY);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Names in a folder. @throws UnsafeEntry; the system's error otherwise. */
export function listSync(folder: DataFolder, below: string): string[] {
  const descriptor = folder.openFolderSync(below);
  try {
    return readdirSync(folder.entriesOf(descriptor, below));
  } finally {
    closeSync(descriptor);
  }
}

/** Creates or overwrites a file, not durably. @throws UnsafeEntry; the system's error otherwise. */
export function writeSmallSync(folder: DataFolder, name: string, content: Buffer): void {
  const file = openOrMake(folder, name);
  try {
    requireFile(name, fstatSync(file), Number.POSITIVE_INFINITY);
    ftruncateSync(file);
    writeSync(file, content);
  } finally {
    closeSync(file);
  }
}

/**
 * Creates an empty file unless it exists. An existing file is not opened: closing it would release a lock
 * that this process holds through another descriptor.
 *
 * @throws UnsafeEntry for an entry of another kind; the system's error otherwise.
 */
export function requireEmptySync(folder: DataFolder, name: string): void {
  const stats = lstatSync(folder.entry(name), { throwIfNoEntry: false });
  if (stats === undefined)
    closeSync(
      openSync(folder.entry(name), constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, FILE_MODE),
    );
  else requireFile(name, stats, 0);
}

/** Removes a file, if it exists. */
export function removeSync(folder: DataFolder, name: string): void {
  try {
    unlinkSync(folder.entry(name));
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
  }
}

function openOrMake(folder: DataFolder, name: string): number {
  const flags = constants.O_RDWR | constants.O_CREAT | SAFE_FLAGS;
  try {
    return openSync(folder.entry(name), flags, FILE_MODE);
  } catch (error) {
    throw folder.openError(name, error);
  }
}
