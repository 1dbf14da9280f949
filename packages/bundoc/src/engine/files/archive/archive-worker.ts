import assert from 'node:assert/strict';
import { setTimeout } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { formatError } from '@bundoc/shared/logs/error-line';
import { openObjectStorage } from '@bundoc/shared/object-storage/open';
import { yieldToOthers } from '@bundoc/shared/process/thread-priority';
import { backoffMs } from '@bundoc/shared/runtime/backoff';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { openNodeDisk } from '../disk/node-disk.ts';
import type { LogEnd } from '../log/log-api.ts';
import type {
  ArchiveAnswer,
  ArchiveQuestion,
  ArchiveReport,
  ArchiveThreadData,
  FromArchiveThread,
  ToArchiveThread,
} from './archive-messages.ts';
import { lastDrill } from './last-drill.ts';
import { PositionStore } from './position.ts';
import { type Shipped, Shipper } from './shipper.ts';

// The thread of `archive-thread.ts`: ships until a message closes it.

/** The longest time that a write waits to be shipped while the target answers. */
const EVERY_MS = 5_000;
const BACKOFF = { firstMs: 1_000, maxMs: 30_000 };
/** Bases are read no faster, so that requests are served beside them. */
const BASE_BYTES_PER_SECOND = 20_971_520;
const BASE_FILES_PER_SECOND = 2_000;

// Requests have priority.
yieldToOthers();

assert(parentPort !== null, 'a thread ships');
const port = parentPort;
const data = workerData as ArchiveThreadData;
const storageId = Buffer.from(data.storageId, 'hex');
const storage = openObjectStorage(data.setting, {
  variable: 'BUNDOC_ARCHIVE',
  environment: data.environment,
  clock: systemClock,
});
const disk = openNodeDisk(data.dataDir);
const closing = new AbortController();
const waiting = new Map<number, (answer: ArchiveAnswer) => void>();
let lastId = 0;

port.on('message', (message: ToArchiveThread) => {
  if (message === 'close') {
    closing.abort();
    return;
  }
  waiting.get(message.id)?.(message.answer);
  waiting.delete(message.id);
});

type Unnumbered<Q> = Q extends unknown ? Omit<Q, 'id'> : never;

function ask(question: Unnumbered<ArchiveQuestion>): Promise<ArchiveAnswer> {
  const id = ++lastId;
  const { promise, resolve } = Promise.withResolvers<ArchiveAnswer>();
  waiting.set(id, resolve);
  send({ ...question, id });
  return promise;
}

function send(message: FromArchiveThread): void {
  port.postMessage(message);
}

function newShipper(): Shipper {
  const { dataDir, projectsDir, tmp } = data;
  return new Shipper({
    disk,
    dataDir,
    projectsDir,
    storageId,
    storage,
    clock: systemClock,
    position: new PositionStore(disk, dataDir, tmp, storage.name, storageId),
    engine: {
      logEnd: async (from) => received((await ask({ ask: 'log end', from })) as LogEnd),
      takeChanged: async () => (await ask({ ask: 'changed projects' })) as readonly string[],
      shipped: async (segment) => void (await ask({ ask: 'shipped', segment })),
    },
  });
}

/** Buffers arrive as plain arrays of bytes. */
function received({ segments, firstLive }: LogEnd): LogEnd {
  return { segments: segments.map((segment) => ({ ...segment, id: Buffer.from(segment.id) })), firstLive };
}

async function reportOf(
  shipper: Shipper,
  shipped: Shipped | undefined,
  begunMs: number,
): Promise<ArchiveReport> {
  return {
    completeAtMs: shipped?.isComplete === false ? undefined : begunMs,
    objects: shipped === undefined ? 0 : 1,
    isRoot: shipped?.isRoot === true,
    basesWaiting: shipper.basesWaiting,
    failed: shipped?.failed ?? [],
    roundBeganMs: shipper.position?.round?.beganMs,
    drilledMs: await lastDrill(disk, data.dataDir),
    error: undefined,
  };
}

function pauseMs(shipped: Shipped | undefined, begunMs: number): number {
  if (shipped?.isMore !== true) return Math.max(0, begunMs + EVERY_MS - Date.now());
  const { bytes, files } = shipped;
  const atLeastMs = 1_000 * Math.max(bytes / BASE_BYTES_PER_SECOND, files / BASE_FILES_PER_SECOND);
  return Math.max(0, begunMs + atLeastMs - Date.now());
}

async function ship(): Promise<void> {
  let shipper = newShipper();
  let failures = 0;
  while (!closing.signal.aborted) {
    const begunMs = Date.now();
    let pause: number;
    try {
      const shipped = await shipper.next();
      failures = 0;
      send({ report: await reportOf(shipper, shipped, begunMs) });
      pause = pauseMs(shipped, begunMs);
    } catch (error) {
      pause = backoffMs(BACKOFF, ++failures);
      const failed = await reportOf(shipper, undefined, begunMs);
      send({ report: { ...failed, completeAtMs: undefined, error: formatError(error) } });
      // It was read incompletely: the next one begins where the position is.
      if (!shipper.isRepeatable) shipper = newShipper();
    }
    await setTimeout(pause, undefined, { signal: closing.signal }).catch(() => undefined);
  }
}

await ship();
await storage[Symbol.asyncDispose]();
await disk[Symbol.asyncDispose]();
port.close();
