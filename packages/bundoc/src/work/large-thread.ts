import { type Account, Accounts } from '@bundoc/shared/admission/account';
import { WAIT_MS_MAX } from '@bundoc/shared/admission/pool';
import { Turns } from '@bundoc/shared/admission/turns';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { ShareKey } from '@bundoc/shared/shares/share-key';
import { receivedError, type SentError } from '@bundoc/shared/threads/calls';
import { Thread } from '@bundoc/shared/threads/thread';
import type { Job } from './job.ts';
import { copyOf } from './large-bytes.ts';

/** A {@link Job} by its module and name, with its input. */
export interface LargeRequest extends Omit<Job<unknown, unknown>, 'run'> {
  readonly input: unknown;
}

export interface LargeAnswer {
  readonly output?: unknown;
  /** The error that the job threw. */
  readonly error?: SentError;
  /** Its processor time, microseconds. */
  readonly us: number;
}

/** The functions that the thread serves. */
export interface LargeJobs {
  run(request: LargeRequest): Promise<LargeAnswer>;
}

interface QueuedJob {
  readonly account: Account;
  readonly onUsed: LargeRunOptions['onUsed'];
  readonly request: LargeRequest;
  /** Ends the wait for its turn. */
  timer: NodeJS.Timeout | undefined;
  readonly done: PromiseWithResolvers<unknown>;
}

export interface LargeThreadOptions {
  /** Maximum time of a job. After it, the job ends together with the thread. */
  readonly jobMsMax: number;
  /**
   * Maximum time of a job while other projects wait. It is shorter than `waitMsMax`, so that they are served
   * before their wait ends.
   */
  readonly sharedJobMsMax: number;
  /** Maximum wait of a subject's job. The service's own jobs wait without a limit. */
  readonly waitMsMax: number;
}

export interface LargeRunOptions {
  readonly signal?: AbortSignal | undefined;
  /** Receives the job's processor time, microseconds, even if the job failed or was ended. */
  readonly onUsed?: (us: number) => void;
}

const OPTIONS: LargeThreadOptions = { jobMsMax: 10_000, sharedJobMsMax: 2_000, waitMsMax: WAIT_MS_MAX };
/** The subject of the service's own work. Its jobs are never refused, because nobody would repeat them. */
const OWN = '';
/**
 * Heap limit of the thread, MiB. Texts have a maximum of objects and arrays, and trees of values, so no job
 * comes near it. A thread that runs out of memory may end the process.
 */
const HEAP_MIB = 1_024;

/**
 * Works on large documents in one thread, one job at a time. The account that has used least is next. A job
 * that takes too long is ended together with the thread, and the next job starts another thread.
 *
 * The thread starts with the first job.
 */
export class LargeThread implements AsyncDisposable {
  readonly #options: LargeThreadOptions;
  readonly #accounts: Accounts;
  readonly #waiting: Turns<QueuedJob>;
  #thread: Thread<LargeJobs> | undefined;
  #running: QueuedJob | undefined;
  #timer: NodeJS.Timeout | undefined;
  #sharedTimer: NodeJS.Timeout | undefined;
  /** Whether the running job has used the time that it may take while others wait. */
  #isOverdue = false;
  #disposed = false;

  constructor(options: Partial<LargeThreadOptions> = {}, accounts = new Accounts()) {
    this.#options = { ...OPTIONS, ...options };
    this.#accounts = accounts;
    this.#waiting = new Turns(accounts);
  }

  /** Number of waiting jobs. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /**
   * Runs a job on copies of its bytes.
   *
   * @throws AppError of the job; `payload_too_large` for a job that takes too long, `rate_limited` if it does
   *   while other projects wait; `rate_limited` or `overloaded` after too long a wait; the signal's reason.
   */
  async run<I, O>(
    key: ShareKey,
    { module, name }: Job<I, O>,
    input: I,
    { signal, onUsed }: LargeRunOptions = {},
  ): Promise<O> {
    signal?.throwIfAborted();
    if (this.#disposed) throw stopping();
    const account = this.#accounts.of(key);
    const waiting: QueuedJob = {
      account,
      request: { module, name, input },
      onUsed,
      done: Promise.withResolvers(),
      timer: undefined,
    };
    if (account.subject.id !== OWN)
      waiting.timer = setTimeout(
        () => this.#abandon(waiting, this.#tooLate(account)),
        this.#options.waitMsMax,
      );
    const onAbort = () => this.#abandon(waiting, signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      this.#waiting.add(account, waiting);
      this.#endOverdue();
      this.#next();
      return (await waiting.done.promise) as O;
    } finally {
      clearTimeout(waiting.timer);
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /** Ends the thread and refuses the waiting jobs. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true;
    for (const job of [...this.#waiting]) {
      this.#waiting.remove(job.account, job);
      job.done.reject(stopping());
    }
    await this.#thread?.terminate(stopping());
  }

  #next(): void {
    if (this.#running !== undefined) return;
    const job = this.#waiting.peek();
    if (job === undefined) return;
    this.#waiting.take(job.account, job);
    clearTimeout(job.timer);
    this.#running = job;
    this.#timer = setTimeout(() => this.#end(tooLong()), this.#options.jobMsMax);
    this.#sharedTimer = setTimeout(() => {
      this.#isOverdue = true;
      this.#endOverdue();
    }, this.#options.sharedJobMsMax);
    void this.#perform(job);
  }

  async #perform({ request, done }: QueuedJob): Promise<void> {
    const beganMs = performance.now();
    try {
      const transfer: ArrayBuffer[] = [];
      const input = withOwnBytes(request.input, transfer);
      const { output, error, us } = await this.#started().call('run', [{ ...request, input }], { transfer });
      this.#finish(us);
      if (error === undefined) done.resolve(output);
      else done.reject(receivedError(error));
    } catch (error) {
      // The job could not be sent, or the thread has ended. An ended thread cannot report its processor time,
      // and another one must start: the subject owes as much as for the longest job.
      const hasEnded = this.#thread?.hasEnded === true;
      const us = (performance.now() - beganMs) * 1_000;
      this.#finish(us, hasEnded ? this.#options.jobMsMax * 1_000 : us);
      done.reject(error);
    }
    this.#next();
  }

  #started(): Thread<LargeJobs> {
    if (this.#thread === undefined || this.#thread.hasEnded)
      this.#thread = new Thread({
        name: 'large documents',
        from: import.meta.url,
        module: './large-worker',
        resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB },
      });
    return this.#thread;
  }

  /** The refusal after too long a wait: `rate_limited` if the subject has its part of the queue. */
  #tooLate({ subject }: Account): AppError {
    const subjects = new Set(Array.from(this.#waiting.accounts, (account) => account.subject));
    const own = [...this.#waiting].filter(({ account }) => account.subject === subject).length;
    const isOwn = own > 1 && own >= this.#waiting.size / subjects.size;
    return new AppError(isOwn ? 'rate_limited' : 'overloaded', {
      detail: isOwn
        ? 'your share of the thread for large documents is in use'
        : 'the service has no time to spare for large documents',
      retryAfterS: WAIT_MS_MAX / 1_000,
    });
  }

  /** Ends a job whose caller has left. If it runs, the thread ends as well. */
  #abandon(job: QueuedJob, reason: unknown): void {
    if (this.#running === job) this.#end(reason);
    else {
      this.#waiting.remove(job.account, job);
      job.done.reject(reason);
    }
  }

  /**
   * Ends the running job if it has used its time and another project waits, even one of the same subject.
   * Jobs of the service itself are never ended for others, and no job is ended for them.
   */
  #endOverdue(): void {
    const running = this.#running?.account;
    if (!this.#isOverdue || running === undefined || running.subject.id === OWN) return;
    for (const other of this.#waiting.accounts)
      if (other !== running && other.subject.id !== OWN) {
        this.#end(tooLongForOthers());
        return;
      }
  }

  /** Ends the running job, with the thread. */
  #end(reason: unknown): void {
    void this.#thread?.terminate(reason);
  }

  /** @param owedUs what its subject owes to others. */
  #finish(us: number, owedUs = us): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#sharedTimer);
    this.#isOverdue = false;
    const job = this.#running;
    this.#running = undefined;
    if (job === undefined) return;
    this.#accounts.charge(job.account, owedUs);
    job.onUsed?.(us);
  }
}

/** Copies every buffer for the transfer. A message would otherwise carry all the memory behind a buffer. */
function withOwnBytes(input: unknown, moved: ArrayBuffer[]): unknown {
  if (input instanceof Uint8Array) {
    const copy = copyOf(input);
    moved.push(copy.buffer);
    return copy;
  }
  if (typeof input !== 'object' || input === null) return input;
  if (Array.isArray(input)) return input.map((item) => withOwnBytes(item, moved));
  return Object.fromEntries(
    Object.entries(input).map(([name, member]) => [name, withOwnBytes(member, moved)]),
  );
}

function tooLong(): AppError {
  return new AppError('payload_too_large', { detail: 'the document takes too long' });
}

function tooLongForOthers(): AppError {
  return new AppError('rate_limited', {
    detail: 'the document takes too long while others wait',
    retryAfterS: WAIT_MS_MAX / 1_000,
  });
}

function stopping(): AppError {
  return new AppError('overloaded', { detail: 'the server is stopping' });
}
