import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { FileChange } from './disk.ts';
import { type FilesToWrite, type Modes, REMOVED, type WriteFailure } from './files-to-write.ts';

/** Why a file could not be written; undefined for one that was. */
export type WriteOutcome = Error | undefined;

interface Asked {
  readonly files: readonly FileChange[];
  readonly done: PromiseWithResolvers<readonly WriteOutcome[]>;
}

/**
 * Writes small files in a thread of its own, synchronously: each takes three calls of the system there, instead of three
 * tasks of libuv's pool, in which the journal's `fdatasync` would have to queue behind them. What is asked for in one turn
 * of the event loop, or while the thread is busy, goes there as one message. The thread gives way to the others.
 *
 * The thread starts with the first file and keeps the process alive only while files are being written.
 */
export class WriteThread {
  readonly #modes: Modes;
  #worker: Worker | undefined;
  #asked: Asked[] = [];
  #sent: Asked[] = [];
  #scheduled = false;

  /** @param modes of the files and folders that it makes. */
  constructor(modes: Modes) {
    this.#modes = modes;
  }

  /**
   * Folders are made if there are none.
   *
   * @returns the outcome of each file; an error has the `code` of the system's error.
   */
  write(files: readonly FileChange[]): Promise<readonly WriteOutcome[]> {
    const done = Promise.withResolvers<readonly WriteOutcome[]>();
    this.#asked.push({ files, done });
    if (!this.#scheduled && this.#sent.length === 0) {
      this.#scheduled = true;
      setImmediate(() => this.#send());
    }
    return done.promise;
  }

  /** Ends the thread; what it was asked for fails. The next file starts another. */
  async terminate(): Promise<void> {
    await this.#worker?.terminate();
  }

  #send(): void {
    this.#scheduled = false;
    if (this.#asked.length === 0) return;
    this.#sent = this.#asked;
    this.#asked = [];
    this.#worker ??= this.#start();
    this.#worker.ref();
    const message = messageOf(this.#sent.flatMap(({ files }) => files));
    this.#worker.postMessage(message, [message.bytes.buffer, message.contents.buffer]);
  }

  #start(): Worker {
    // From `dist` as from the sources, whose types Node strips.
    const file = `./write-worker${extname(import.meta.url)}`;
    const worker = new Worker(new URL(file, import.meta.url), {
      env: {},
      execArgv: [],
      workerData: this.#modes,
    });
    worker.on('message', (failures: readonly WriteFailure[]) => {
      const sent = this.#sent;
      this.#sent = [];
      worker.unref();
      settle(sent, failures);
      this.#send();
    });
    worker.on('error', (error) => this.#died(worker, error));
    worker.on('exit', () => this.#died(worker, new Error('the thread that writes files has ended')));
    return worker;
  }

  #died(worker: Worker, error: unknown): void {
    if (this.#worker !== worker) return;
    this.#worker = undefined;
    const lost = [...this.#sent, ...this.#asked];
    this.#sent = [];
    this.#asked = [];
    const failure = error instanceof Error ? error : new Error(String(error));
    for (const { files, done } of lost) done.resolve(files.map(() => failure));
  }
}

function messageOf(files: readonly FileChange[]): FilesToWrite & {
  readonly bytes: Float64Array<ArrayBuffer>;
  readonly contents: Uint8Array<ArrayBuffer>;
} {
  const contents = new Uint8Array(files.reduce((sum, { content }) => sum + (content?.length ?? 0), 0));
  const bytes = new Float64Array(files.length);
  let end = 0;
  for (const [at, { content }] of files.entries()) {
    bytes[at] = content?.length ?? REMOVED;
    if (content === undefined) continue;
    contents.set(content, end);
    end += content.length;
  }
  return { paths: files.map(({ path }) => path).join('\0'), bytes, contents };
}

/** Gives each who asked the outcomes of its own files. */
function settle(sent: readonly Asked[], failures: readonly WriteFailure[]): void {
  const failed = new Map(
    failures.map(({ at, code, message }) => [at, Object.assign(new Error(message), { code })]),
  );
  let before = 0;
  for (const { files, done } of sent) {
    const start = before;
    done.resolve(files.map((_, at) => failed.get(start + at)));
    before += files.length;
  }
}
