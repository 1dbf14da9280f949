import type { Worker } from 'node:worker_threads';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { ProblemCode } from '@bundoc/shared/contract/problem';

export interface WorkerRequest {
  readonly id: number;
  readonly operation: string;
  readonly args: readonly unknown[];
  /**
   * Deadline by `process.hrtime`, which all threads of a process share. A request that has not begun by then
   * never begins.
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
  /** Maximum pending calls. Beyond it `overloaded`. */
  readonly pendingMax: number;
  /** Called once when the thread ends unexpectedly. It is not restarted. */
  readonly onCrash: (error: Error) => void;
}

/**
 * How long to wait for the end of a thread, milliseconds. A thread that hangs in a system call ends only
 * after it.
 */
const TERMINATE_MS = 500;

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: AppError) => void;
  readonly timer: NodeJS.Timeout;
}

/**
 * Calls into a worker thread, each with a deadline. After the deadline the caller gets `storage_unavailable`,
 * but the thread continues its work, so the outcome of a write is unknown.
 */
export class WorkerRpc {
  readonly #worker: Worker;
  readonly #options: WorkerRpcOptions;
  readonly #pending = new Map<number, Pending>();
  /**
   * Requests of this turn of the event loop, which are sent as one message, because a message costs as much
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
   * Lets the thread finish earlier calls, for at most the deadline of one call, then ends it. Idempotent;
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

  /** Sends one request alone; if it cannot be sent, it fails alone. */
  #sendAlone(request: WorkerRequest): void {
    try {
      this.#worker.postMessage([request]);
    } catch (error) {
      this.#settle({ id: request.id, failure: { code: 'internal_error', message: String(error) } });
    }
  }

  #settle(reply: WorkerReply): void {
    const pending = this.#pending.get(reply.id);
    if (pending === undefined) return; // The deadline has passed.
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

/** The reason is the cause of the error, for the log only. */
function unavailable(reason: string, cause?: Error): AppError {
  return new AppError('storage_unavailable', { cause: new Error(reason, { cause }) });
}
