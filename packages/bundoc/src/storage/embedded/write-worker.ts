import { writeFileSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';

// The thread of `write-thread.ts`: writes files one after another, synchronously. It must import nothing of the workspace, so
// that it starts in a few milliseconds and from the sources as well.

/** A file to write, in full. */
export interface FileToWrite {
  readonly path: string;
  readonly content: Uint8Array;
  readonly mode: number;
}

/** What became of a file: undefined, or the error's code and message. */
export type WriteOutcome = { readonly code: string | undefined; readonly message: string } | undefined;

parentPort?.on('message', (files: readonly FileToWrite[]) => {
  parentPort?.postMessage(files.map(writeOne));
});

function writeOne({ path, content, mode }: FileToWrite): WriteOutcome {
  try {
    writeFileSync(path, content, { mode });
    return undefined;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return { code, message };
  }
}
