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
 * How long a request may work, waits included, milliseconds. What it waits for then has a limit of its own,
 * of 15 s for a job in the thread for large documents: it is refused before its connection has stood still
 * for 60 s, and is closed without an answer.
 */
export const WORK_MS_MAX = 40_000;

/** Memory that work holds without being counted, and pieces that it is counted in. */
const UNCOUNTED_BYTES = 262_144;
const COUNTED_BYTES = 1_048_576;

/**
 * One task that may take long. From a {@link pause} to its next call it runs without others.
 */
export class Work implements Disposable {
  readonly key: ShareKey;
  readonly account: Account;
  readonly kind: WorkKind;
  readonly #scheduler: Scheduler;
  readonly #signal: AbortSignal | undefined;
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
    this.#signal = signal;
    this.#endMs = this.isOwn ? Number.POSITIVE_INFINITY : scheduler.ports.nowMs() + WORK_MS_MAX;
  }

  /**
   * To be awaited before the first step and between any two. Undefined while the slice lasts, so that it need
   * not be awaited then.
   *
   * Rejects with the signal's reason, and `overloaded` for work that takes too long.
   */
  pause(): Promise<void> | undefined {
    return this.#scheduler.mayRun(this) ? undefined : this.#waitForTurn();
  }

  /** Ends what runs, before the task waits for something else. */
  leave(): void {
    this.#scheduler.leave(this);
  }

  /** Counts processor time that the task took while it waited for something else. */
  spend(us: number): void {
    this.#scheduler.spend(this, us);
  }

  /**
   * Waits for something else than the processor. What `begin` does before it waits belongs to the task. A
   * hold that it takes is returned if the task may not go on.
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
   * Has a job done on a large document, in the thread for those.
   *
   * @throws AppError of the job; `payload_too_large` for one that takes too long, `rate_limited` for one that
   * does while others wait; `rate_limited` or `overloaded` when it has waited too long; the signal's reason.
   */
  async elsewhere<I, O>(job: Job<I, O>, input: I): Promise<O> {
    return this.outside(() =>
      this.#scheduler.large.run(this.key, job, input, {
        signal: this.#signal,
        onUsed: (us) => this.#scheduler.count(this, us),
      }),
    );
  }

  /**
   * Bytes of memory that the task holds from now on, all together. They are given back when it is disposed
   * of.
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

  /** Of the service itself: it has no share. */
  get isOwn(): boolean {
    return this.key.subject === '';
  }

  /** @throws the signal's reason; AppError `overloaded` when the time of the request is over. */
  #requireTime(): void {
    this.#signal?.throwIfAborted();
    if (this.#scheduler.ports.nowMs() < this.#endMs) return;
    throw new AppError('overloaded', {
      detail: 'the request took too long',
      retryAfterS: WAIT_MS_MAX / 1_000,
    });
  }

  async #waitForTurn(): Promise<void> {
    const signal = this.#signal;
    this.#requireTime();
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
