import type { Worker } from 'node:worker_threads';
import { startThread } from '@bundoc/shared/threads/start-thread';
import {
  ASKED,
  BYTES,
  DESCRIPTOR,
  type LogThreadData,
  type LogWriteFailure,
  OFFSET_BLOCKS,
  OFFSET_BYTES,
  STOP,
  WORDS,
} from './log-request.ts';

/**
 * Writes frames in a separate thread, so that no frame waits in libuv's pool. Both threads share the memory
 * of the bytes, and a request is a few words in it. Nothing is copied, and the event loop only handles the
 * answer.
 *
 * One write at a time. The thread keeps the process alive only during a write.
 */
export class LogThread {
  /** The bytes to write, from the first byte on. */
  readonly buffer: Buffer;
  readonly #words: Int32Array;
  readonly #worker: Worker;
  #writing: PromiseWithResolvers<void> | undefined;
  #ended: Error | undefined;

  /** @param bytes length of the longest write. */
  constructor(bytes: number) {
    const shared: LogThreadData = {
      words: new SharedArrayBuffer(WORDS * Int32Array.BYTES_PER_ELEMENT),
      bytes: new SharedArrayBuffer(bytes),
    };
    this.buffer = Buffer.from(shared.bytes);
    this.#words = new Int32Array(shared.words);
    this.#worker = startThread(import.meta.url, './log-worker', { name: 'log', workerData: shared });
    this.#worker.unref();
    this.#worker.on('message', (failure: LogWriteFailure) => this.#settle(failure));
    this.#worker.on('error', (error) => this.#died(error));
    this.#worker.on('exit', () => this.#died(new Error('the thread of the log has ended')));
  }

  /**
   * Writes the first `bytes` of {@link buffer} into an open file. The buffer must not change during the
   * write.
   *
   * @param descriptor opened with `O_DSYNC`.
   * @param offset a multiple of {@link OFFSET_BYTES}.
   * @throws an error with the `code` of the system's error; then any part may have been written.
   */
  write(descriptor: number, offset: number, bytes: number): Promise<void> {
    const writing = Promise.withResolvers<void>();
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    this.#writing = writing;
    this.#worker.ref();
    this.#words[DESCRIPTOR] = descriptor;
    this.#words[OFFSET_BLOCKS] = offset / OFFSET_BYTES;
    this.#words[BYTES] = bytes;
    this.#ask();
    return writing.promise;
  }

  /** Ends the thread after its current write. */
  async stop(): Promise<void> {
    await this.#writing?.promise.catch(() => undefined);
    if (this.#ended !== undefined) return;
    const ended = new Promise((resolve) => this.#worker.once('exit', resolve));
    this.#worker.ref();
    this.#words[DESCRIPTOR] = STOP;
    this.#ask();
    await ended;
  }

  #ask(): void {
    Atomics.add(this.#words, ASKED, 1);
    Atomics.notify(this.#words, ASKED);
  }

  #settle(failure: LogWriteFailure): void {
    const writing = this.#writing;
    this.#writing = undefined;
    this.#worker.unref();
    if (failure === undefined) writing?.resolve();
    else writing?.reject(Object.assign(new Error(failure.message), { code: failure.code }));
  }

  #died(error: unknown): void {
    this.#ended ??= error instanceof Error ? error : new Error(String(error));
    this.#writing?.reject(this.#ended);
    this.#writing = undefined;
  }
}
