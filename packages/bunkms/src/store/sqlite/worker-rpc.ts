import type { Worker } from 'node:worker_threads';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { ProblemCode } from '@bundoc/shared/contract/problem';

export interface WorkerRequest {
  readonly id: number;
  readonly operation: string;
  readonly args: readonly unknown[];
  /**
   * By `process.hrtime`, which all threads of a process share. A request that was not begun by then is not
   * begun.
   */
  readonly expiresAtNs: bigint;
}

export interface WorkerFailure {
  readonly code: ProblemCode;
  readonly message: string;
}

export type WorkerReply =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly failure: WorkerFailure };

export interface WorkerRpcOptions {
  readonly deadlineMs: number;
  /** Calls that may wait at once; beyond it `overloaded`. */
  readonly pendingMax: number;
  /** Told once when the thread ends without having been asked to; nothing restarts it. */
  readonly onCrash: (error: Error) => void;
}

/**
 * How long the end of a thread is waited for, milliseconds. One that hangs in a system call ends only with
 * that.
 */
const TERMINATE_MS = 500;

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: AppError) => void;
  readonly timer: NodeJS.Timeout;
}

/**
 * Calls into a worker thread with a deadline each. When the deadline passes the caller gets
 * `storage_unavailable`; what the thread was doing goes on, so the outcome of a write is unknown then.
 */
export class WorkerRpc {
  readonly #worker: Worker;
  readonly #options: WorkerRpcOptions;
  readonly #pending = new Map<number, Pending>();
  /**
   * Requests of this turn of the event loop, which go to the thread as one message: a message costs as much
   * as a look-up.
   */
  #unsent: WorkerRequest[] = [];
  #lastId = 0;
  #ended: AppError | undefined;
  #closing: Promise<void> | undefined;

  constructor(worker: Worker, options: WorkerRpcOptions) {
    this.#worker = worker;
    this.#options = options;
    worker.on('message', (replies: readonly WorkerReply[]) => {
      for (const reply of replies) this.#settle(reply);
    });
    worker.on('error', (error) => this.#end(error instanceof Error ? error : new Error(String(error))));
    worker.on('exit', (code) => this.#end(new Error(`the storage thread ended with code ${code}`)));
  }

  /** @throws AppError as the thread reports it, or `storage_unavailable`, `overloaded`. */
  call(operation: string, args: readonly unknown[], deadlineMs = this.#options.deadlineMs): Promise<unknown> {
    if (this.#closing !== undefined) return Promise.reject(unavailable('the storage is closed'));
    if (this.#pending.size >= this.#options.pendingMax) return Promise.reject(new AppError('overloaded'));
    return this.#send(operation, args, deadlineMs);
  }

  /**
   * Lets the thread finish what was asked before, for as long as one call may take, then ends it. Idempotent;
   * never throws.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (this.#ended === undefined)
      await this.#send('close', [], this.#options.deadlineMs).catch(() => undefined);
    const cutOff = new Promise<void>((resolve) => setTimeout(resolve, TERMINATE_MS).unref());
    await Promise.race([this.#worker.terminate(), cutOff]);
  }

  #send(operation: string, args: readonly unknown[], deadlineMs: number): Promise<unknown> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(unavailable(`the storage did not answer ${operation} within ${deadlineMs} ms`));
      }, deadlineMs);
      this.#pending.set(id, { resolve, reject, timer });
      const expiresAtNs = process.hrtime.bigint() + BigInt(deadlineMs) * 1_000_000n;
      if (this.#unsent.length === 0) setImmediate(() => this.#sendAll());
      this.#unsent.push({ id, operation, args, expiresAtNs });
    });
  }

  #sendAll(): void {
    const requests = this.#unsent;
    this.#unsent = [];
    try {
      this.#worker.postMessage(requests);
    } catch {
      for (const request of requests) this.#sendAlone(request);
    }
  }

  /** What cannot be sent fails by itself. */
  #sendAlone(request: WorkerRequest): void {
    try {
      this.#worker.postMessage([request]);
    } catch (error) {
      this.#settle({ id: request.id, failure: { code: 'internal_error', message: String(error) } });
    }
  }

  #settle(reply: WorkerReply): void {
    const pending = this.#pending.get(reply.id);
    if (pending === undefined) return; // Its deadline has passed.
    this.#pending.delete(reply.id);
    clearTimeout(pending.timer);
    if ('failure' in reply)
      pending.reject(new AppError(reply.failure.code, { cause: new Error(reply.failure.message) }));
    else pending.resolve(reply.value);
  }

  #end(error: Error): void {
    if (this.#ended !== undefined) return;
    this.#ended = unavailable('the storage thread has ended', error);
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer);
      reject(this.#ended);
    }
    this.#pending.clear();
    if (this.#closing === undefined) this.#options.onCrash(error);
  }
}

/** The reason goes into the cause, for the log: it is no business of the caller's. */
function unavailable(reason: string, cause?: Error): AppError {
  return new AppError('storage_unavailable', { cause: new Error(reason, { cause }) });
}
