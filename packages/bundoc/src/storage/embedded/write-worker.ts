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
import { setPriority } from 'node:os';
import { dirname } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { type FilesToWrite, type Modes, REMOVED, type WriteFailure } from './files-to-write.ts';

// The thread of `write-thread.ts`: writes files one after another, synchronously. It must import no other package of
// the workspace, so that it starts in a few milliseconds and from the sources as well.

const { fileMode, directoryMode } = workerData as Modes;

/** How much the thread gives way to others, in the scale of nice(1). */
const NICENESS = 10;
// Commits are durable without these files, so whoever waits for an answer goes first. On Linux this is the priority of the thread; elsewhere
// it would be that of the whole process.
if (process.platform === 'linux') setPriority(NICENESS);

parentPort?.on('message', ({ paths, bytes, contents }: FilesToWrite) => {
  const failures: WriteFailure[] = [];
  let end = 0;
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
      const { code, message } = error as NodeJS.ErrnoException;
      failures.push({ at, code, message });
    }
  }
  parentPort?.postMessage(failures);
});

function writeOne(path: string, content: Uint8Array): void {
  const file = openOne(path);
  try {
    let written = 0;
    while (written < content.length) written += writeSync(file, content, written);
    // Emptied before it is written, an overwritten file would cost four times as much.
    if (fstatSync(file).size > content.length) ftruncateSync(file, content.length);
  } finally {
    closeSync(file);
  }
}

function openOne(path: string): number {
  const flags = constants.O_WRONLY | constants.O_CREAT;
  try {
    return openSync(path, flags, fileMode);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    mkdirSync(dirname(path), { mode: directoryMode });
    return openSync(path, flags, fileMode);
  }
}

function removeOne(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
