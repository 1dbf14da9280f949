import { Batcher } from '@bundoc/shared/runtime/batcher';
import { receivedError } from '@bundoc/shared/threads/calls';
import { Thread } from '@bundoc/shared/threads/thread';
import type { FileChange } from './disk.ts';
import { type FilesToWrite, type FileWrites, REMOVED, type WritePlace } from './files-to-write.ts';

/** The error of a file; undefined when it was written. */
export type WriteOutcome = Error | undefined;

interface PendingCall {
  readonly files: readonly FileChange[];
  readonly settle: (outcomes: readonly WriteOutcome[]) => void;
}

/**
 * Writes small files synchronously in a separate thread. Each takes three system calls there, instead of
 * three tasks in libuv's pool that delay reads. One message carries all requests of a turn of the event loop,
 * or those that arrive while the thread is busy. The thread has a lower priority than the others.
 *
 * The thread starts with the first file.
 */
export class WriteThread implements AsyncDisposable {
  readonly #place: WritePlace;
  readonly #batcher = new Batcher<PendingCall>({
    run: (batch) => this.#write(batch),
    queue: Number.POSITIVE_INFINITY,
    isGathering: true,
  });
  #thread: Thread<FileWrites> | undefined;
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
    const { promise, resolve } = Promise.withResolvers<readonly WriteOutcome[]>();
    this.#batcher.add({ files, settle: resolve });
    return promise;
  }

  /**
   * Called after folders were removed or renamed: later files go to the folders that now have these names.
   */
  forgetFolders(): void {
    this.#forgetFolders = true;
  }

  /** Ends the thread after its pending writes. It accepts no further requests. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#batcher.settled();
    await this.#thread?.close();
  }

  /** Ends the thread at once; its pending writes fail. The next file starts another thread. */
  async terminate(): Promise<void> {
    await this.#thread?.terminate(new Error('the thread that writes files has ended'));
  }

  async #write(batch: readonly PendingCall[]): Promise<void> {
    let errorAt: (at: number) => WriteOutcome;
    try {
      const files = batch.flatMap((asked) => asked.files);
      const message = messageOf(files, this.#forgetFolders);
      this.#forgetFolders = false;
      const transfer = [message.bytes.buffer, message.contents.buffer];
      const failures = await this.#started().call('write', [message], { transfer });
      const errors = new Map(failures.map(({ at, error }) => [at, receivedError(error)]));
      errorAt = (at) => errors.get(at);
    } catch (error) {
      errorAt = () => error as Error;
    }
    let start = 0;
    for (const { files, settle } of batch) {
      const before = start;
      settle(files.map((_, at) => errorAt(before + at)));
      start += files.length;
    }
  }

  #started(): Thread<FileWrites> {
    if (this.#thread === undefined || this.#thread.hasEnded)
      this.#thread = new Thread({
        name: 'document files',
        from: import.meta.url,
        module: './write-worker',
        workerData: this.#place,
      });
    return this.#thread;
  }
}

function messageOf(files: readonly FileChange[], forgetFolders: boolean): FilesToWrite {
  const contents = new Uint8Array(files.reduce((sum, { content }) => sum + (content?.length ?? 0), 0));
  const bytes = new Float64Array(files.length);
  let end = 0;
  for (const [at, { content }] of files.entries()) {
    bytes[at] = content?.length ?? REMOVED;
    if (content === undefined) continue;
    contents.set(content, end);
    end += content.length;
  }
  return { paths: files.map(({ path }) => path).join('\0'), bytes, contents, forgetFolders };
}
