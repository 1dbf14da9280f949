import type { Account } from '@bundoc/shared/admission/account';
import { type Hold, WAIT_MS_MAX } from '@bundoc/shared/admission/pool';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { ShareKey } from '@bundoc/shared/shares/share-key';
import type { Job } from './job.ts';
import type { Scheduler } from './scheduler.ts';

/** Kinds of long work, as the metrics name them. */
export const WORK_KINDS = [
  'query',
  'read',
  'write',
  'batch',
  'patch',
  'projection',
  'changes',
  'definition',
  'index',
  'snapshot',
  'expiry',
] as const;
export type WorkKind = (typeof WORK_KINDS)[number];

/**
 * How long a request may work, waits included, milliseconds. Its last wait has its own limit: 15 s for a job
 * in the thread for large documents. Both together stay below the 60 s after which an idle connection is
 * closed, so the client gets an answer.
 */
export const WORK_MS_MAX = 40_000;

/**
 * How long the building of an index rests after each slice while requests are in the service, milliseconds. A
 * write passes through a dozen turns of the event loop, and would wait for a slice in each.
 */
const INDEX_REST_MS = 5;

/** Memory that work may hold uncounted. The rest is counted in units of {@link COUNTED_BYTES}. */
const UNCOUNTED_BYTES = 262_144;
const COUNTED_BYTES = 1_048_576;

/** One task that may take long. Other tasks run only while it waits in {@link pause} or {@link outside}. */
export class Work implements Disposable {
  readonly key: ShareKey;
  readonly account: Account;
  readonly kind: WorkKind;
  readonly #scheduler: Scheduler;
  /** Aborted when nobody wants the result any more. */
  readonly signal: AbortSignal | undefined;
  readonly #endMs: number;
  #wait: (() => void) | undefined;
  #memory: Hold | undefined;
  #isOver = false;

  /** @see Scheduler.work */
  constructor(scheduler: Scheduler, key: ShareKey, kind: WorkKind, signal: AbortSignal | undefined) {
    this.#scheduler = scheduler;
    this.key = key;
    this.account = scheduler.ports.accounts.of(key);
    this.account.users++;
    this.kind = kind;
    this.signal = signal;
    this.#endMs = this.isOwn ? Number.POSITIVE_INFINITY : scheduler.ports.nowMs() + WORK_MS_MAX;
  }

  /**
   * The task awaits it before the first step and between any two steps. It returns undefined while the slice
   * lasts: then there is nothing to await.
   *
   * Rejects with the signal's reason, and `overloaded` for work that takes too long.
   */
  pause(): Promise<void> | undefined {
    return this.#scheduler.mayRun(this) ? undefined : this.#waitForTurn();
  }

  /** Ends the task's slice. A task calls it before it waits for anything but its turn. */
  leave(): void {
    this.#scheduler.leave(this);
  }

  /** Counts processor time that the task took while it waited for something else. */
  spend(us: number): void {
    this.#scheduler.spend(this, us);
  }

  /**
   * Waits for something other than the processor. The task is charged for the time that `begin` takes before
   * it waits. If the task may not continue after the wait, the result is disposed of.
   */
  async outside<T>(begin: () => T | Promise<T>): Promise<T> {
    this.#requireTime();
    await this.pause();
    let begun: T | Promise<T>;
    try {
      begun = begin();
    } finally {
      this.leave();
    }
    const result = await begun;
    try {
      this.#requireTime();
      await this.pause();
    } catch (error) {
      if (isDisposable(result)) result[Symbol.dispose]();
      throw error;
    }
    return result;
  }

  /**
   * Runs a job in the thread for large documents.
   *
   * @throws AppError of the job; `payload_too_large` for a job that takes too long, `rate_limited` if it does
   * while others wait; `rate_limited` or `overloaded` after too long a wait; the signal's reason.
   */
  async elsewhere<I, O>(job: Job<I, O>, input: I): Promise<O> {
    return this.outside(() =>
      this.#scheduler.large.run(this.key, job, input, {
        signal: this.signal,
        onUsed: (us) => this.#scheduler.count(this, us),
      }),
    );
  }

  /**
   * Sets how many bytes of memory the task holds in total. Disposing of the task returns them.
   *
   * @throws AppError `rate_limited`, `overloaded`.
   */
  hold(bytes: number): void {
    const { memory } = this.#scheduler.ports;
    if (memory === undefined || this.isOwn) return;
    const wanted = COUNTED_BYTES * Math.ceil(Math.max(0, bytes - UNCOUNTED_BYTES) / COUNTED_BYTES);
    const more = wanted - (this.#memory?.units ?? 0);
    if (more > 0) {
      const hold = memory.tryTakeMore(this.key, more);
      if (hold === undefined) throw memory.refusal(this.key, more);
      if (this.#memory === undefined) this.#memory = hold;
      else {
        hold[Symbol.dispose]();
        this.#memory.resize(wanted);
      }
    } else if (more < 0) this.#memory?.resize(wanted);
  }

  /** For {@link Scheduler} alone. */
  granted(): void {
    const wait = this.#wait;
    this.#wait = undefined;
    this.#scheduler.mayRun(this);
    wait?.();
  }

  [Symbol.dispose](): void {
    this.leave();
    this.#memory?.[Symbol.dispose]();
    this.#memory = undefined;
    if (!this.#isOver) this.account.users--;
    this.#isOver = true;
  }

  /** Whether the task belongs to the service itself. Such a task has no share. */
  get isOwn(): boolean {
    return this.key.subject === '';
  }

  /** @throws the signal's reason; AppError `overloaded` after {@link WORK_MS_MAX}. */
  #requireTime(): void {
    this.signal?.throwIfAborted();
    if (this.#scheduler.ports.nowMs() < this.#endMs) return;
    throw new AppError('overloaded', {
      detail: 'the request took too long',
      retryAfterS: WAIT_MS_MAX / 1_000,
    });
  }

  async #waitForTurn(): Promise<void> {
    const signal = this.signal;
    this.#requireTime();
    const { isShared, rest } = this.#scheduler.ports;
    if (this.isOwn && this.kind === 'index' && isShared?.(this.account) === true) await rest(INDEX_REST_MS);
    const turn = Promise.withResolvers<void>();
    this.#wait = turn.resolve;
    const onAbort = () => {
      this.#scheduler.dequeue(this);
      this.#wait = undefined;
      turn.reject(signal?.reason);
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    this.#scheduler.enqueue(this);
    try {
      await turn.promise;
      this.#scheduler.resumed(this);
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
    this.#requireTime();
  }
}

function isDisposable(result: unknown): result is Disposable {
  return typeof result === 'object' && result !== null && Symbol.dispose in result;
}

/** Begins long work of the service itself for one project. */
export type OwnWork = (kind: WorkKind) => Work;
