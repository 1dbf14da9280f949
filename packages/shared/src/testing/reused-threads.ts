import { EventEmitter } from 'node:events';
import { extname } from 'node:path';
import { MessageChannel, type MessagePort, type Transferable, type Worker } from 'node:worker_threads';
import { vi } from 'vitest';
import { LONG } from './long.ts';
import type { HostedRun } from './thread-host.ts';

// A file for `setupFiles`. The services of tests start hundreds of threads, and each loads its modules again:
// 130 ms of processor time of the 240 that a start of BunKMS takes. So a thread that has finished its calls
// runs the next module. It has one caller at a time, as otherwise. `npm run test:long` starts each thread.

/** Imports nothing, and waits for its requests without an event loop. */
const STARTED_EACH_TIME = './log-worker';

type StartThread = typeof import('../threads/start-thread.ts').startThread;

/** Of the whole process: this file is loaded again for each file of tests. */
const FREE = Symbol.for('bundoc.freeThreads');
const process_ = globalThis as { [FREE]?: Map<string, Worker[]> };
process_[FREE] ??= new Map();
const free = process_[FREE];

/** A thread that was in use before, seen like a new one. */
class ReusedThread extends EventEmitter {
  readonly #worker: Worker;
  readonly #port: MessagePort;
  #hasEnded = false;

  constructor(worker: Worker, run: Omit<HostedRun, 'port'>, onFree: () => void) {
    super();
    const { port1, port2 } = new MessageChannel();
    this.#worker = worker;
    this.#port = port1;
    const closed = new Promise((resolve) => port1.once('close', resolve));
    const freed = new Promise((resolve) => worker.once('message', resolve));
    const failed = (error: unknown): boolean => this.emit('error', error);
    const exited = (code: number): void => ended(code === 0 ? 1 : code);
    const ended = (code: number): void => {
      if (this.#hasEnded) return;
      this.#hasEnded = true;
      worker.off('error', failed);
      worker.off('exit', exited);
      if (code === 0) onFree();
      this.emit('exit', code);
    };
    worker.on('error', failed);
    worker.on('exit', exited);
    // All messages of the thread have arrived, and it is still there.
    void Promise.all([closed, freed]).then(() => ended(0));
    port1.on('message', (message) => this.emit('message', message));
    port1.on('messageerror', (error) => this.emit('messageerror', error));
    worker.postMessage({ ...run, port: port2 } satisfies HostedRun, [port2]);
  }

  postMessage(message: unknown, transfer: readonly Transferable[] = []): void {
    this.#port.postMessage(message, transfer);
  }

  ref(): void {
    this.#port.ref();
  }

  unref(): void {
    this.#port.unref();
  }

  /** Ends the thread for good, unless it has already ended by itself. */
  async terminate(): Promise<number> {
    return this.#hasEnded ? 0 : this.#worker.terminate();
  }
}

/** Like `startThread`, with a free thread of the same name and limits if there is one. */
function reusing(start: StartThread): StartThread {
  return (from, module, { workerData, ...options }) => {
    if (module === STARTED_EACH_TIME) return start(from, module, { workerData, ...options });
    const kind = JSON.stringify([options.name, options.resourceLimits]);
    const begin = (): Worker => {
      const started = start(import.meta.url, './thread-host', options);
      // One that dies while it waits must not be used.
      return started.once('exit', () =>
        free.set(
          kind,
          waiting().filter((one) => one !== started),
        ),
      );
    };
    const waiting = (): readonly Worker[] => free.get(kind) ?? [];
    const worker = free.get(kind)?.pop() ?? begin();
    worker.unref();
    const { href: url } = new URL(`${module}${extname(from)}`, from);
    // The members of a worker that `startThread` is called for.
    return new ReusedThread(worker, { url, workerData }, () => {
      free.set(kind, [...waiting(), worker]);
    }) as unknown as Worker;
  };
}

if (!LONG)
  vi.doMock('../threads/start-thread.ts', async (original) => {
    const { startThread } = await original<typeof import('../threads/start-thread.ts')>();
    return { startThread: reusing(startThread) };
  });
