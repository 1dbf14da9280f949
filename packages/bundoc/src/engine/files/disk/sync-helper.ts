import { type ChildProcessByStdio, execFile, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** For each folder that it reads, it syncs the file system of it, and says on a line how that went. */
const SCRIPT = `while IFS= read -r folder; do
  if said=$(sync -f -- "$folder" 2>&1); then echo ok; else echo failed $said; fi
done`;

type Helper = ChildProcessByStdio<Writable, Readable, null>;

/**
 * Syncs file systems by `sync -f` of coreutils, one at a time.
 *
 * A process of its own starts the command. To start it from here would copy the page tables of this process
 * on the thread of the event loop: with 2 GiB that takes up to a quarter of a second.
 */
export class SyncHelper {
  #helper: Helper | undefined;
  /** Of the syncs that were asked for, in their order. Undefined says that nobody knows. */
  #asked: ((said: string | undefined) => void)[] = [];

  /** Starts the process, which ends with this one. To be called while this process is small. */
  start(): void {
    if (this.#helper !== undefined) return;
    const helper: Helper = spawn('sh', ['-c', SCRIPT], {
      // What a terminal sends to this process must not end it before the last sync.
      detached: true,
      stdio: ['pipe', 'pipe', 'ignore'],
      env: { PATH: process.env['PATH'], LC_ALL: 'C' },
    });
    const gone = () => this.#gone(helper);
    helper.once('error', gone).once('exit', gone);
    helper.stdin.on('error', gone);
    createInterface({ input: helper.stdout }).on('line', (line) => {
      this.#asked.shift()?.(line);
      this.#hold();
    });
    this.#helper = helper;
    this.#hold();
  }

  /** @throws what the sync says when a write has failed. */
  async sync(folder: string): Promise<void> {
    const said = folder.includes('\n') ? undefined : await this.#ask(folder);
    if (said === undefined) await run('sync', ['-f', '--', folder]);
    else if (said !== 'ok') throw new Error(said);
  }

  #ask(folder: string): Promise<string | undefined> {
    this.start();
    const { promise, resolve } = Promise.withResolvers<string | undefined>();
    this.#asked.push(resolve);
    this.#hold();
    this.#helper?.stdin.write(`${folder}\n`);
    return promise;
  }

  /** The process has ended, or did not begin. */
  #gone(helper: Helper): void {
    if (this.#helper !== helper) return;
    this.#helper = undefined;
    for (const settle of this.#asked.splice(0)) settle(undefined);
  }

  /** This process waits for the other one while a sync is under way, and else may end. */
  #hold(): void {
    const helper = this.#helper;
    if (helper === undefined) return;
    const parts = [helper, helper.stdin, helper.stdout] as unknown as { ref(): void; unref(): void }[];
    for (const part of parts)
      if (this.#asked.length > 0) part.ref();
      else part.unref();
  }
}
