// Loaded into a service by `--expose-gc --import`. It answers signals for which no service has a use, each by
// a line on standard error.
//
// SIGWINCH: every thread collects its garbage, and the main thread tells what memory it uses. SIGPWR: so, and
// a heap snapshot is written. SIGURG: a profile of the main thread's processor time begins; with the next one
// it ends and is written.

import { writeFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { writeHeapSnapshot } from 'node:v8';
import { BroadcastChannel, isMainThread } from 'node:worker_threads';

/** Threads collect at the same time; the main thread waits so long for the others. */
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
 * Gives pages of the heap that hold nothing back to the system: `gc()` alone keeps them for later, and
 * resident memory would count them.
 */
function collectGarbage() {
  globalThis.gc({ type: 'major', execution: 'sync', flavor: 'last-resort' });
}

async function collect(snapshots) {
  channel.postMessage('collect');
  // The first one finds what finalizers of the second one free.
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
