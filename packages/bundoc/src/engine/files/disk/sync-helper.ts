import { type ChildProcessByStdio, execFile, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { promisify } from 'node:util';

const run = promisify(execFile);

/**
 * Syncs the file system of each folder that it reads: it prints a line when it starts, and one with the
 * outcome.
 */
const SCRIPT = `while IFS= read -r folder; do
  echo begun
  if said=$(sync -f -- "$folder" 2>&1); then echo ok; else printf 'failed %s\\n' "$(printf %s "$said" | tr '\\n' ' ')"; fi
done`;

interface PendingSync {
  hasBegun: boolean;
  /** Undefined means that the sync did not start. */
  readonly settle: (said: string | undefined) => void;
}

type Helper = ChildProcessByStdio<Writable, Readable, null>;

/**
 * Syncs file systems with `sync -f` of coreutils, one at a time.
 *
 * A separate process runs the command. Starting it from this process would copy the page tables on the event
 * loop's thread. With 2 GiB that takes up to a quarter of a second.
 */
export class SyncHelper {
  #helper: Helper | undefined;
  /** The requested syncs, in order. */
  readonly #asked: PendingSync[] = [];

  /** Starts the process, which ends with this one. Call it while this process is small. */
  start(): void {
    if (this.#helper !== undefined) return;
    const helper: Helper = spawn('sh', ['-c', SCRIPT], {
      // Signals from the terminal must not end it before the last sync.
      detached: true,
      stdio: ['pipe', 'pipe', 'ignore'],
      env: { PATH: process.env['PATH'], LC_ALL: 'C' },
    });
    const gone = () => this.#gone(helper);
    // After `close` it has no more output.
    helper.once('error', gone).once('close', gone);
    helper.stdin.on('error', () => undefined);
    createInterface({ input: helper.stdout }).on('line', (line) => {
      const [first] = this.#asked;
      if (line === 'begun' && first !== undefined) first.hasBegun = true;
      else this.#asked.shift()?.settle(line);
      this.#hold();
    });
    this.#helper = helper;
    this.#hold();
  }

  /** @throws the error of the sync when a write has failed, and when its outcome is lost. */
  async sync(folder: string): Promise<void> {
    const said = folder.includes('\n') ? undefined : await this.#ask(folder);
    if (said === undefined) await run('sync', ['-f', '--', folder]);
    else if (said !== 'ok') throw new Error(said);
  }

  #ask(folder: string): Promise<string | undefined> {
    this.start();
    const { promise, resolve } = Promise.withResolvers<string | undefined>();
    this.#asked.push({ hasBegun: false, settle: resolve });
    this.#hold();
    this.#helper?.stdin.write(`${folder}\n`);
    return promise;
  }

  /**
   * The process has ended or failed to start. A started sync counts as failed: it may have received the
   * report of a failed write, which the kernel gives once.
   */
  #gone(helper: Helper): void {
    if (this.#helper !== helper) return;
    this.#helper = undefined;
    for (const { hasBegun, settle } of this.#asked.splice(0))
      settle(hasBegun ? 'the process that syncs has ended during a sync' : undefined);
  }

  /** Keeps this process alive only while a sync is running. */
  #hold(): void {
    const helper = this.#helper;
    if (helper === undefined) return;
    const parts = [helper, helper.stdin, helper.stdout] as unknown as { ref(): void; unref(): void }[];
    for (const part of parts)
      if (this.#asked.length > 0) part.ref();
      else part.unref();
  }
}
