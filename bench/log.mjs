// The log of a data folder alone: commits of 1 KiB, 64 at a time, over 1, 64 and 1,000 projects.
//
//     npm run build && node bench/log.mjs [seconds]

import { createSecretKey, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { openNodeDisk } from '../packages/bundoc/dist/engine/files/disk/node-disk.js';
import { Log } from '../packages/bundoc/dist/engine/files/log/log.js';
import { logLimits } from '../packages/bundoc/dist/engine/files/log/log-api.js';
import { NodeLogDisk } from '../packages/bundoc/dist/engine/files/log/node-log-disk.js';
import { partKeysOf } from '../packages/bundoc/dist/engine/files/log/part-seal.js';
import { sealInto } from '../packages/shared/dist/crypto/aead.js';
import { DataFolder } from '../packages/shared/dist/files/data-folder.js';

const SECONDS = Number(process.argv[2] ?? 4);
const CLIENTS = 64;
const DOCUMENT_BYTES = 1_024;
const LOG_BYTES = 268_435_456;

const text = randomBytes(DOCUMENT_BYTES);
const aad = Buffer.from('a document of a benchmark');

/** The sealed part of a commit: the document, and about as many further bytes as a record has. */
function sealed(dek) {
  const record = Buffer.allocUnsafe(DOCUMENT_BYTES + 28 + 100);
  sealInto(dek, text, aad, record.subarray(100));
  return record;
}

const newDek = () => createSecretKey(randomBytes(32));

/** A project on the log, which puts all waiting commits into one part. */
class OnLog {
  handle = randomBytes(8).toString('hex');
  makesRoom = false;
  #waiting = [];

  constructor(log, at) {
    this.project = `p${at}`;
    this.dek = newDek();
    this.keys = partKeysOf(new Map([[1, this.dek]]));
    this.log = log;
    this.attached = log.attach(this, undefined);
  }

  commit() {
    const { promise, resolve, reject } = Promise.withResolvers();
    this.#waiting.push({ resolve, reject });
    this.attached.ready();
    return promise;
  }

  take(bytesMax) {
    if (this.#waiting.length === 0) return undefined;
    const taken = this.#waiting.splice(0, Math.max(1, Math.floor(bytesMax / (DOCUMENT_BYTES + 128))));
    return {
      kind: 'data',
      keyVersion: 1,
      plaintext: taken.map(() => sealed(this.dek)),
      commits: taken.length,
      durable: () => undefined,
      answer: () => {
        for (const { resolve } of taken) resolve();
      },
      refused: (error) => {
        for (const { reject } of taken) reject(error);
      },
      unknown: (error) => {
        for (const { reject } of taken) reject(error);
      },
    };
  }

  refuse(error) {
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }
}

async function measure(projects) {
  const endMs = performance.now() + SECONDS * 1_000;
  const cpu = process.threadCpuUsage();
  const startMs = performance.now();
  let commits = 0;
  await Promise.all(
    Array.from({ length: CLIENTS }, async (_, client) => {
      for (let at = client; performance.now() < endMs; at += CLIENTS) {
        await projects[at % projects.length].commit();
        commits++;
      }
    }),
  );
  const { user, system } = process.threadCpuUsage(cpu);
  const perSecond = (commits * 1_000) / (performance.now() - startMs);
  return { perSecond: Math.round(perSecond), cpuUs: ((user + system) / commits).toFixed(1) };
}

async function onLog(directory, count) {
  using folder = DataFolder.open(directory);
  await using entries = openNodeDisk(directory);
  await using disk = new NodeLogDisk(entries, folder);
  const options = { disk, directory: join(directory, 'log'), storageId: randomBytes(16), mustExist: false };
  await using log = await Log.open({
    ...options,
    // The state of a log that has grown.
    limits: { ...logLimits(LOG_BYTES), segmentsMin: LOG_BYTES / 16_777_216 },
    // Replaces the snapshots of an engine: everything is covered, so the oldest segments are free.
    observer: { onPressure: () => setImmediate(cover) },
  });
  const projects = Array.from({ length: count }, (_, at) => new OnLog(log, at));
  function cover() {
    for (const { handle, attached } of projects) {
      const mark = attached.mark();
      if (mark !== undefined) log.cover(handle, mark);
    }
  }
  const measured = await measure(projects);
  const { frames, commits } = log.stats;
  return { ...measured, perFrame: (commits / frames).toFixed(1) };
}

/** Opens a log of 256 MiB with 10,000 projects, until it has read everything that needs no key. */
async function start(directory) {
  const options = { directory: join(directory, 'start'), storageId: randomBytes(16), mustExist: false };
  const limits = logLimits(LOG_BYTES);
  {
    using folder = DataFolder.open(directory);
    await using entries = openNodeDisk(directory);
    await using disk = new NodeLogDisk(entries, folder);
    await using log = await Log.open({ disk, ...options, limits });
    const projects = Array.from({ length: 10_000 }, (_, at) => new OnLog(log, at));
    for (let at = 0; log.stats.segmentsLive < limits.segmentsMax - 3; at += 1_000)
      await Promise.all(Array.from({ length: 1_000 }, (_, one) => projects[(at + one) % 10_000].commit()));
  }
  using folder = DataFolder.open(directory);
  await using entries = openNodeDisk(directory);
  await using disk = new NodeLogDisk(entries, folder);
  const startMs = performance.now();
  await using log = await Log.open({ disk, ...options, limits });
  const ms = Math.round(performance.now() - startMs);
  return { ms, handles: log.stats.handles, segments: log.stats.segmentsLive };
}

console.log('projects | commits/s, main thread us/commit, commits/frame');
for (const count of [1, 64, 1_000]) {
  const directory = mkdtempSync(join(process.cwd(), '.bench-log-'));
  try {
    const { perSecond, cpuUs, perFrame } = await onLog(directory, count);
    console.log(`${count} | ${perSecond}, ${cpuUs}, ${perFrame}`);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

const directory = mkdtempSync(join(process.cwd(), '.bench-log-'));
try {
  const { ms, handles, segments } = await start(directory);
  console.log(`start with ${segments} segments of ${handles} projects: ${ms} ms (page cache warm)`);
} finally {
  rmSync(directory, { recursive: true });
}
