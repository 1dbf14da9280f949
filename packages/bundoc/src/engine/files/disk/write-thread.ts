import { once } from 'node:events';
import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { workerEnvironment } from '@bundoc/shared/runtime/worker-environment';
import type { FileChange } from './disk.ts';
import { END, type FilesToWrite, REMOVED, type WriteFailure, type WritePlace } from './files-to-write.ts';

/** The error of a file; undefined when it was written. */
export type WriteOutcome = Error | undefined;

interface Asked {
  readonly files: readonly FileChange[];
  readonly done: PromiseWithResolvers<readonly WriteOutcome[]>;
}

/**
 * Writes small files synchronously in a separate thread. Each takes three system calls there, instead of
 * three tasks in libuv's pool that delay reads. One message carries all requests of a turn of the event loop,
 * or those that arrive while the thread is busy. The thread has a lower priority than the others.
 *
 * The thread starts with the first file and keeps the process alive only while files are being written.
 */
export class WriteThread implements AsyncDisposable {
  readonly #place: WritePlace;
  #worker: Worker | undefined;
  #asked: Asked[] = [];
  #sent: Asked[] = [];
  #scheduled = false;
  #forgetFolders = false;

  /** @param place its folder stays open until the thread has ended. */
  constructor(place: WritePlace) {
    this.#place = place;
  }

  /**
   * Creates missing folders.
   *
   * @param files have paths below the data folder.
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

  /**
   * Called after folders were removed or renamed: later files go to the folders that now have these names.
   */
  forgetFolders(): void {
    this.#forgetFolders = true;
  }

  /** Ends the thread after its pending writes. It accepts no further requests. */
  async [Symbol.asyncDispose](): Promise<void> {
    const worker = this.#worker;
    if (worker === undefined) return;
    this.#worker = undefined;
    const ended = once(worker, 'exit');
    worker.ref();
    worker.postMessage(END);
    await ended;
  }

  /** Ends the thread at once; its pending writes fail. The next file starts another thread. */
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
    const message = {
      ...messageOf(this.#sent.flatMap(({ files }) => files)),
      forgetFolders: this.#forgetFolders,
    };
    this.#forgetFolders = false;
    this.#worker.postMessage(message, [message.bytes.buffer, message.contents.buffer]);
  }

  #start(): Worker {
    // Works from `dist` and from the sources, whose types Node strips.
    const extension = extname(import.meta.url);
    const worker = new Worker(new URL(`./write-worker${extension}`, import.meta.url), {
      env: workerEnvironment(),
      execArgv: extension === '.ts' ? ['--conditions=@bundoc/source'] : [],
      workerData: this.#place,
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

function messageOf(files: readonly FileChange[]): Omit<FilesToWrite, 'forgetFolders'> & {
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

/** Returns to each caller the outcomes of its files. */
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
