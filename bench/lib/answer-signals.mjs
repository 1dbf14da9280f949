// Loaded into a service with `--expose-gc --import`. It answers signals that no service uses, each with a
// line on standard error.
//
// SIGWINCH: every thread collects its garbage, and the main thread reports its memory. SIGPWR: the same, and
// a heap snapshot is written. SIGURG: starts a CPU profile of the main thread; the next one ends and writes
// it.

import { writeFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { writeHeapSnapshot } from 'node:v8';
import { BroadcastChannel, isMainThread } from 'node:worker_threads';

/** How long the main thread waits for the garbage collections of the other threads, milliseconds. */
const OTHERS_MS = 500;
const SAMPLE_US = 500;

const channel = new BroadcastChannel('bench: collect garbage');
channel.unref();
let session;

if (isMainThread) {
  process.on('SIGWINCH', () => void collect());
  process.on('SIGPWR', () => void collect(process.env.BENCH_SNAPSHOTS));
  process.on('SIGURG', () => void (session === undefined ? beginProfile() : endProfile()));
} else
  channel.onmessage = () => {
    collectGarbage();
    channel.unref();
  };

/**
 * Returns empty pages of the heap to the system. `gc()` alone keeps them, and they would count as resident
 * memory.
 */
function collectGarbage() {
  globalThis.gc({ type: 'major', execution: 'sync', flavor: 'last-resort' });
}

async function collect(snapshots) {
  channel.postMessage('collect');
  // The second collection frees what finalizers of the first one released.
  collectGarbage();
  await sleep(OTHERS_MS);
  collectGarbage();
  const memory = process.memoryUsage();
  const snapshot = snapshots === undefined ? undefined : writeHeapSnapshot(nameIn(snapshots, 'heapsnapshot'));
  answer({ ...memory, snapshot });
}

async function beginProfile() {
  session = new Session();
  session.connect();
  await session.post('Profiler.enable');
  await session.post('Profiler.setSamplingInterval', { interval: SAMPLE_US });
  await session.post('Profiler.start');
  answer({});
}

async function endProfile() {
  const { profile } = await session.post('Profiler.stop');
  session.disconnect();
  session = undefined;
  const path = nameIn(process.env.BENCH_PROFILES, 'cpuprofile');
  writeFileSync(path, JSON.stringify(profile));
  answer({ profile: path });
}

function nameIn(folder, extension) {
  return join(folder, `${Date.now()}-${process.pid}.${extension}`);
}

function answer(object) {
  process.stderr.write(`BENCH-ANSWER ${JSON.stringify(object)}\n`);
}
