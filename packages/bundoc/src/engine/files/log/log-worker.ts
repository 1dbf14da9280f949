import { writeSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import {
  ASKED,
  BYTES,
  DESCRIPTOR,
  type LogThreadData,
  type LogWriteFailure,
  OFFSET_BLOCKS,
  OFFSET_BYTES,
  STOP,
} from './log-request.ts';

// The thread of `log-thread.ts`: waits for a request, writes, answers. It must not import another package of
// the workspace, so that it starts in a few milliseconds even from the sources.

const shared = workerData as LogThreadData;
const words = new Int32Array(shared.words);
const buffer = new Uint8Array(shared.bytes);

for (let seen = 0; ; seen++) {
  Atomics.wait(words, ASKED, seen);
  const descriptor = words[DESCRIPTOR] as number;
  if (descriptor === STOP) break;
  parentPort?.postMessage(
    writeWhole(descriptor, (words[OFFSET_BLOCKS] as number) * OFFSET_BYTES, words[BYTES] as number),
  );
}

function writeWhole(descriptor: number, offset: number, bytes: number): LogWriteFailure {
  try {
    let written = 0;
    while (written < bytes)
      written += writeSync(descriptor, buffer, written, bytes - written, offset + written);
    return undefined;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return { code, message };
  }
}
