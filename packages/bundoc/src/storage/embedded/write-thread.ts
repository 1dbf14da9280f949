import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { FilesToWrite, Modes, WriteOutcome } from './write-worker.ts';

export interface FileToWrite {
  readonly path: string;
  readonly content: Buffer;
}

interface Asked {
  readonly file: FileToWrite;
  readonly done: PromiseWithResolvers<void>;
}

/**
 * Writes small files in a thread of its own, synchronously: each takes three calls of the system there, instead of three
 * tasks of libuv's pool, in which the journal's `fdatasync` would have to queue behind them. What is asked for in one turn
 * of the event loop, or while the thread is busy, goes there as one message.
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

  /** Its folder is made if there is none. Rejects with an error that has the `code` of the system's error. */
  write(file: FileToWrite): Promise<void> {
    const done = Promise.withResolvers<void>();
    this.#asked.push({ file, done });
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
    const message = messageOf(this.#sent.map(({ file }) => file));
    this.#worker.postMessage(message, [message.contents.buffer]);
  }

  #start(): Worker {
    // From `dist` as from the sources, whose types Node strips.
    const file = `./write-worker${extname(import.meta.url)}`;
    const worker = new Worker(new URL(file, import.meta.url), {
      env: {},
      execArgv: [],
      workerData: this.#modes,
    });
    worker.on('message', (outcomes: readonly WriteOutcome[]) => {
      const sent = this.#sent;
      this.#sent = [];
      worker.unref();
      for (const [at, { done }] of sent.entries()) {
        const failure = outcomes[at];
        if (failure === undefined) done.resolve();
        else done.reject(Object.assign(new Error(failure.message), { code: failure.code }));
      }
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
    for (const { done } of lost) done.reject(error);
  }
}

function messageOf(
  files: readonly FileToWrite[],
): FilesToWrite & { readonly contents: Uint8Array<ArrayBuffer> } {
  const contents = new Uint8Array(files.reduce((sum, { content }) => sum + content.length, 0));
  let at = 0;
  for (const { content } of files) {
    contents.set(content, at);
    at += content.length;
  }
  return { files: files.map(({ path, content }) => ({ path, bytes: content.length })), contents };
}
