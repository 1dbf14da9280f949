import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import type { Transferable, Worker, WorkerOptions } from 'node:worker_threads';
import { type Answer, type Call, CLOSE, receivedError } from './calls.ts';
import { startThread } from './start-thread.ts';

export interface ThreadOptions extends Pick<WorkerOptions, 'workerData' | 'resourceLimits'> {
  /** `import.meta.url` of the caller. */
  readonly from: string;
  /** The module that calls `serveCalls`, relative to `from`, without extension. */
  readonly module: string;
  readonly name: string;
  /** Called once when the thread ends unexpectedly. */
  readonly onCrash?: (error: Error) => void;
  /** What calls throw instead of a {@link ThreadFailed}. */
  readonly toFailure?: (failed: ThreadFailed) => Error;
}

export interface CallOptions {
  /**
   * After it the call fails with {@link ThreadFailed}. The thread continues its work, so the outcome is
   * unknown.
   */
  readonly deadlineMs?: number | undefined;
  /** Memory of the arguments that moves to the thread. */
  readonly transfer?: readonly Transferable[];
}

/** The thread has ended, or has not answered in time. */
export class ThreadFailed extends Error {
  override readonly name = 'ThreadFailed';
}

interface PendingCall {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
  readonly timer: NodeJS.Timeout | undefined;
}

interface Unsent {
  readonly call: Call;
  readonly transfer: readonly Transferable[];
}

type Arguments<F> = F extends (...args: infer A) => unknown ? A : never;
type Result<F> = F extends (...args: never) => infer R ? Awaited<R> : never;

/**
 * How long to wait for the end of a thread, milliseconds. A thread that hangs in a system call ends only
 * after it.
 */
const TERMINATE_MS = 500;

/**
 * A thread that serves the functions of `Served` by name. It is not restarted. It keeps the process alive
 * only while calls wait for their answers.
 */
export class Thread<Served extends object> {
  readonly #fail: (what: string, cause?: Error) => Error;
  readonly #worker: Worker;
  readonly #pending = new Map<number, PendingCall>();
  /** Calls of this turn of the event loop, sent as one message: a message costs as much as a short call. */
  #unsent: Unsent[] = [];
  #lastId = 0;
  /** Why calls fail from now on. */
  #ended: unknown;
  #closing: Promise<void> | undefined;

  constructor({ from, module, name, onCrash, toFailure, ...options }: ThreadOptions) {
    this.#fail = (what, cause) => {
      const failed = new ThreadFailed(`the thread "${name}" ${what}`, { cause });
      return toFailure?.(failed) ?? failed;
    };
    this.#worker = startThread(from, module, { name, ...options });
    this.#worker.unref();
    this.#worker.on('message', (answers: readonly Answer[]) => {
      for (const answer of answers)
        if ('error' in answer) this.#take(answer.id)?.reject(receivedError(answer.error));
        else this.#take(answer.id)?.resolve(answer.value);
    });
    const crashed = (error: Error): void => {
      if (this.#ended !== undefined) return;
      this.#end(this.#fail('has ended', error));
      if (this.#closing === undefined) onCrash?.(error);
    };
    this.#worker.on('error', (error) => crashed(error instanceof Error ? error : new Error(String(error))));
    this.#worker.on('exit', (code) => crashed(new Error(`the thread "${name}" exited with code ${code}`)));
  }

  /** Number of calls that wait for their answers. */
  get pending(): number {
    return this.#pending.size;
  }

  get hasEnded(): boolean {
    return this.#ended !== undefined;
  }

  /**
   * @param args are copied, except memory in `transfer`.
   * @throws the error of the function, {@link ThreadFailed}, or the error of arguments that cannot be copied.
   */
  call<Name extends keyof Served & string>(
    name: Name,
    args: Arguments<Served[Name]>,
    { deadlineMs, transfer = [] }: CallOptions = {},
  ): Promise<Result<Served[Name]>> {
    if (this.#closing !== undefined) return Promise.reject(this.#fail('is closed'));
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const id = ++this.#lastId;
    const expire = (): void => {
      this.#take(id)?.reject(this.#fail(`did not answer ${name} in ${deadlineMs} ms`));
    };
    const timer = deadlineMs === undefined ? undefined : setTimeout(expire, deadlineMs);
    if (this.#pending.size === 0) this.#worker.ref();
    this.#pending.set(id, { resolve, reject, timer });
    if (this.#unsent.length === 0) setImmediate(() => this.#sendAll());
    const call = { id, name, args, expiresAtNs: deadlineMs === undefined ? undefined : nsAfter(deadlineMs) };
    this.#unsent.push({ call, transfer });
    return promise as Promise<Result<Served[Name]>>;
  }

  /**
   * Lets the thread finish earlier calls, then ends it. Idempotent; never throws.
   *
   * @param withinMs maximum time for the earlier calls.
   */
  close(withinMs?: number): Promise<void> {
    const end = async (): Promise<void> => {
      if (this.#ended === undefined) {
        const exited = once(this.#worker, 'exit').catch(() => undefined);
        this.#worker.ref();
        this.#sendAll();
        this.#worker.postMessage(CLOSE);
        await (withinMs === undefined ? exited : Promise.race([exited, patience(withinMs)]));
      }
      await Promise.race([this.#worker.terminate(), patience(TERMINATE_MS)]);
    };
    this.#closing ??= end();
    return this.#closing;
  }

  /** Ends the thread at once; calls that wait are rejected with `reason`. */
  async terminate(reason: unknown): Promise<void> {
    this.#end(reason);
    await this.#worker.terminate();
  }

  #sendAll(): void {
    const unsent = this.#unsent;
    this.#unsent = [];
    try {
      send(this.#worker, unsent);
    } catch {
      // A call that cannot be sent fails alone.
      for (const one of unsent)
        try {
          send(this.#worker, [one]);
        } catch (error) {
          this.#take(one.call.id)?.reject(error);
        }
    }
  }

  /** The call of an answer; undefined when it no longer waits. */
  #take(id: number): PendingCall | undefined {
    const pending = this.#pending.get(id);
    if (pending === undefined) return undefined;
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    if (this.#pending.size === 0 && this.#closing === undefined) this.#worker.unref();
    return pending;
  }

  #end(reason: unknown): void {
    if (this.#ended !== undefined) return;
    this.#ended = reason;
    for (const id of [...this.#pending.keys()]) this.#take(id)?.reject(reason);
  }
}

function send(worker: Worker, unsent: readonly Unsent[]): void {
  worker.postMessage(
    unsent.map(({ call }) => call),
    unsent.flatMap(({ transfer }) => transfer),
  );
}

/** The time of `process.hrtime` after some milliseconds. */
function nsAfter(ms: number): bigint {
  return process.hrtime.bigint() + BigInt(Math.ceil(ms * 1_000_000));
}

function patience(ms: number): Promise<void> {
  return delay(ms, undefined, { ref: false });
}
