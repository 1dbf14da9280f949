// Loaded into a service by `--expose-gc --import`. On SIGWINCH, for which no service has a use, every thread collects its garbage.
// Then the main thread tells what memory it uses, as one line on standard error. On SIGPWR it writes a heap snapshot first.

import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { writeHeapSnapshot } from 'node:v8';
import { BroadcastChannel, isMainThread } from 'node:worker_threads';

/** Threads collect at the same time; the main thread waits so long for the others. */
const OTHERS_MS = 500;

const channel = new BroadcastChannel('bench: collect garbage');
channel.unref();

if (isMainThread) {
  process.on('SIGWINCH', () => void collect());
  process.on('SIGPWR', () => void collect(process.env.BENCH_SNAPSHOTS));
} else
  channel.onmessage = () => {
    globalThis.gc();
    channel.unref();
  };

async function collect(snapshots) {
  channel.postMessage('collect');
  // The first one finds what finalizers of the second one free.
  globalThis.gc();
  await sleep(OTHERS_MS);
  globalThis.gc();
  const memory = process.memoryUsage();
  const name = `${Date.now()}-${process.pid}.heapsnapshot`;
  const snapshot = snapshots === undefined ? undefined : writeHeapSnapshot(join(snapshots, name));
  process.stderr.write(`BENCH-MEMORY ${JSON.stringify({ ...memory, snapshot })}\n`);
}
