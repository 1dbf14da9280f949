import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { workerData } from 'node:worker_threads';
import {
  codeOf,
  DataFolder,
  getName,
  parentOf,
  requireFile,
  SAFE_FLAGS,
} from '@bundoc/shared/files/data-folder';
import { yieldToOthers } from '@bundoc/shared/process/thread-priority';
import { sentError } from '@bundoc/shared/threads/calls';
import { serveCalls } from '@bundoc/shared/threads/serve-calls';
import {
  type FilesToWrite,
  type FileWrites,
  REMOVED,
  type WriteFailure,
  type WritePlace,
} from './files-to-write.ts';
import { OpenFolders } from './open-folders.ts';

// The thread of `write-thread.ts`: writes files one by one, synchronously. It imports no library, so that it
// starts in a few milliseconds.

const place = workerData as WritePlace;
const { fileMode, directoryMode } = place;
const folder = DataFolder.over(place.folder);
const folders = new OpenFolders(folder);

// Commits are durable without these files, so requests with waiting clients go first.
yieldToOthers();

const writes: FileWrites = { write: writeAll };
serveCalls(() => writes, { onClose: () => folders[Symbol.dispose]() });

function writeAll({ paths, bytes, contents, forgetFolders }: FilesToWrite): readonly WriteFailure[] {
  const failures: WriteFailure[] = [];
  let end = 0;
  if (forgetFolders) folders[Symbol.dispose]();
  for (const [at, path] of paths.split('\0').entries()) {
    const length = bytes[at] as number;
    try {
      if (length === REMOVED) {
        removeOne(path);
        continue;
      }
      end += length;
      writeOne(path, contents.subarray(end - length, end));
    } catch (error) {
      failures.push({ at, error: sentError(error) });
    }
  }
  return failures;
}

function writeOne(path: string, content: Uint8Array): void {
  const file = openOne(path);
  try {
    const stats = fstatSync(file);
    requireFile(path, stats, Number.POSITIVE_INFINITY);
    let written = 0;
    while (written < content.length) written += writeSync(file, content, written);
    // Truncating it before the write would make an overwrite four times as expensive.
    if (stats.size > content.length) ftruncateSync(file, content.length);
  } finally {
    closeSync(file);
  }
}

function openOne(path: string): number {
  const flags = constants.O_WRONLY | constants.O_CREAT | SAFE_FLAGS;
  const entry = `${openEntries(parentOf(path))}/${getName(path)}`;
  try {
    return openSync(entry, flags, fileMode);
  } catch (error) {
    throw folder.openError(path, error);
  }
}

/** Opens the folder of a file, and creates it if necessary. */
function openEntries(below: string): string {
  try {
    return folders.entriesOf(below);
  } catch (error) {
    if (codeOf(error) !== 'ENOENT' || below === '') throw error;
    mkdirSync(`${folders.entriesOf(parentOf(below))}/${getName(below)}`, { mode: directoryMode });
    return folders.entriesOf(below);
  }
}

function removeOne(path: string): void {
  try {
    unlinkSync(`${folders.entriesOf(parentOf(path))}/${getName(path)}`);
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
  }
}
