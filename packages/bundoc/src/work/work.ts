import { AppError } from '@bundoc/shared/contract/app-error';
import type { Hold } from '@bundoc/shared/shares/hold';
import { WAIT_MS_MAX } from '@bundoc/shared/shares/share';
import type { ShareKey } from '@bundoc/shared/shares/share-key';
import type { Job } from './job.ts';
import type { Room, Scheduler } from './scheduler.ts';

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

/** Places that a subject gets at least when others have taken all of them. */
const FIRST_PLACES = 8;

/**
 * One task that may take long. From a {@link pause} to its next call it runs without others.
 *
 * One class, because the turn, the place and the memory of a task end together.
 */
export class Work implements Disposable {
  readonly key: ShareKey;
  readonly kind: WorkKind;
  /** Time that it has taken, in any thread. For {@link Scheduler} alone. */
  usedUs = 0;
  /** Time that it counts for while it is unfinished; 0 before it waits. For {@link Loads} alone. */
  loadUs = 0;
  /** Whether it was refused, so that its time says nothing of what such work takes. */
  isRefused = false;
  readonly #scheduler: Scheduler;
  /** Whether it counts among the work that runs. For {@link Admission} alone. */
  isAdmitted = false;
  readonly #signal: AbortSignal | undefined;
  readonly #endMs: number;
  #wait: { readonly grant: () => void; readonly refuse: (reason: unknown) => void } | undefined;
  #hasBegun = false;
  #place: Hold | undefined;
  #memory: Hold | undefined;

  /** @see Scheduler.work */
  constructor(scheduler: Scheduler, key: ShareKey, kind: WorkKind, signal: AbortSignal | undefined) {
    this.#scheduler = scheduler;
    this.key = key;
    this.kind = kind;
    this.#signal = signal;
    this.#endMs = this.isOwn ? Number.POSITIVE_INFINITY : scheduler.nowMs + WORK_MS_MAX;
  }

  /**
   * To be awaited before the first step and between any two. Undefined while the slice lasts, so that it need
   * not be awaited then.
   *
   * Rejects with the signal's reason; `overloaded` for work that takes too long; `rate_limited` or
   * `overloaded` for work that has not begun, when too much waits or it has waited too long.
   */
  pause(): Promise<void> | undefined {
    if (!this.#scheduler.mayRun(this)) return this.#waitForTurn();
    this.#hasBegun = true;
    this.#scheduler.admit(this);
    return undefined;
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
   * does while others wait; `rate_limited` or `overloaded` when too many wait, or it has waited too long; the
   * signal's reason.
   */
  async elsewhere<I, O>(job: Job<I, O>, input: I): Promise<O> {
    this.#takePlace({ isLarge: true });
    return this.outside(() =>
      this.#scheduler.large.run(this.key, job, input, {
        signal: this.#signal,
        refusal: () => this.#refusal(),
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
    const { memory } = this.#scheduler;
    if (memory === undefined || this.isOwn) return;
    const wanted = COUNTED_BYTES * Math.ceil(Math.max(0, bytes - UNCOUNTED_BYTES) / COUNTED_BYTES);
    const more = wanted - (this.#memory?.units ?? 0);
    if (more > 0) {
      const hold = memory.tryTake(this.key, more);
      if (hold === undefined) {
        this.isRefused = true;
        throw memory.refusal(this.key, more);
      }
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
    this.#hasBegun = true;
    this.#scheduler.mayRun(this);
    wait?.grant();
  }

  /** For {@link Scheduler} alone. */
  waitedTooLong(): void {
    const wait = this.#wait;
    this.#wait = undefined;
    wait?.refuse(this.#refusal());
  }

  [Symbol.dispose](): void {
    this.leave();
    this.#scheduler.end(this);
    this.#memory?.[Symbol.dispose]();
    this.#memory = undefined;
    this.#leavePlace();
  }

  /** Whether its subject has much less work than others have. For {@link Levels} alone. */
  get isOfLittle(): boolean {
    return this.#scheduler.hasLittle(this.key.subject);
  }

  /** Of the service itself: it has no share. */
  get isOwn(): boolean {
    return this.key.subject === '';
  }

  /** @throws the signal's reason; AppError `overloaded` when the time of the request is over. */
  #requireTime(): void {
    this.#signal?.throwIfAborted();
    if (this.#scheduler.nowMs < this.#endMs) return;
    throw new AppError('overloaded', {
      detail: 'the request took too long',
      retryAfterS: WAIT_MS_MAX / 1_000,
    });
  }

  /** For its turn, or for the thread for large work. */
  #takePlace({ isLarge = false } = {}): void {
    const { places } = this.#scheduler;
    if (this.#place !== undefined || places === undefined || this.isOwn) return;
    this.#place = places.tryTake(this.key, 1);
    if (this.#place !== undefined) return;
    const isShort = !isLarge && this.#scheduler.isShort(this);
    if (places.heldBy(this.key.subject) >= placesBeyond(places, isShort)) throw places.refusal(this.key, 1);
    this.#place = places.charge(this.key, 1);
  }

  #leavePlace(): void {
    this.#place?.[Symbol.dispose]();
    this.#place = undefined;
  }

  /** Of work that has waited too long. Its own place does not count. */
  #refusal(): AppError {
    const { places } = this.#scheduler;
    this.#leavePlace();
    return places?.refusal(this.key, 1) ?? new AppError('overloaded', { retryAfterS: WAIT_MS_MAX / 1_000 });
  }

  async #waitForTurn(): Promise<void> {
    const signal = this.#signal;
    this.#requireTime();
    this.#takePlace();
    const turn = Promise.withResolvers<void>();
    this.#wait = { grant: turn.resolve, refuse: turn.reject };
    const onAbort = () => {
      this.#scheduler.dequeue(this);
      this.#wait = undefined;
      turn.reject(signal?.reason);
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    this.#scheduler.enqueue(this, this.#hasBegun || this.isOwn);
    try {
      await turn.promise;
      this.#scheduler.resumed(this);
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
    this.#requireTime();
  }
}

/**
 * How many places a subject may have although others have taken all: an equal part, while not many do. For
 * short work, it may have an eighth: that waits for little.
 */
function placesBeyond({ held, capacity, subjects }: Room, isShort: boolean): number {
  if (held < capacity) return 0;
  const part = isShort ? 1 / 8 : Math.min(1 / 8, 1 / subjects);
  return isShort || held < 2 * capacity ? Math.max(FIRST_PLACES, capacity * part) : FIRST_PLACES;
}

function isDisposable(result: unknown): result is Disposable {
  return typeof result === 'object' && result !== null && Symbol.dispose in result;
}

/** Begins long work of the service itself for one project. */
export type OwnWork = (kind: WorkKind) => Work;
