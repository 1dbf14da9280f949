import { type ChildProcessByStdio, execFile, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Syncs the file system of each folder that it reads: a line says that it begins, and one how it went. */
const SCRIPT = `while IFS= read -r folder; do
  echo begun
  if said=$(sync -f -- "$folder" 2>&1); then echo ok; else printf 'failed %s\\n' "$(printf %s "$said" | tr '\\n' ' ')"; fi
done`;

interface Asked {
  hasBegun: boolean;
  /** Undefined says that the sync did not begin. */
  readonly settle: (said: string | undefined) => void;
}

type Helper = ChildProcessByStdio<Writable, Readable, null>;

/**
 * Syncs file systems by `sync -f` of coreutils, one at a time.
 *
 * A process of its own starts the command. To start it from here would copy the page tables of this process
 * on the thread of the event loop: with 2 GiB that takes up to a quarter of a second.
 */
export class SyncHelper {
  #helper: Helper | undefined;
  /** The syncs that were asked for, in their order. */
  readonly #asked: Asked[] = [];

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
    // Closed, it has said all that it will say.
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

  /** @throws what the sync says when a write has failed, and when its outcome is lost. */
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
   * The process has ended, or did not begin. A sync that had begun has failed: it may have taken the report
   * of a failed write with it, which the kernel gives once.
   */
  #gone(helper: Helper): void {
    if (this.#helper !== helper) return;
    this.#helper = undefined;
    for (const { hasBegun, settle } of this.#asked.splice(0))
      settle(hasBegun ? 'the process that syncs has ended during a sync' : undefined);
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
