import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';

// The thread of `write-thread.ts`: writes files one after another, synchronously. It must import nothing of the workspace, so
// that it starts in a few milliseconds and from the sources as well.

/**
 * Files to write, in full. Their contents come one after another in one piece of memory that is handed over, which costs a
 * tenth of copies of their own.
 */
export interface FilesToWrite {
  readonly files: readonly { readonly path: string; readonly bytes: number }[];
  readonly contents: Uint8Array;
}

/** Of what the thread makes. */
export interface Modes {
  readonly fileMode: number;
  readonly directoryMode: number;
}

/** What became of a file: undefined, or the error's code and message. */
export type WriteOutcome = { readonly code: string | undefined; readonly message: string } | undefined;

const { fileMode, directoryMode } = workerData as Modes;

parentPort?.on('message', ({ files, contents }: FilesToWrite) => {
  let end = 0;
  const outcomes = files.map(({ path, bytes }) => {
    end += bytes;
    return writeOne(path, contents.subarray(end - bytes, end));
  });
  parentPort?.postMessage(outcomes);
});

function writeOne(path: string, content: Uint8Array): WriteOutcome {
  try {
    try {
      writeFileSync(path, content, { mode: fileMode });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      mkdirSync(dirname(path), { mode: directoryMode });
      writeFileSync(path, content, { mode: fileMode });
    }
    return undefined;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return { code, message };
  }
}
