import { AppError } from '../contract/app-error.ts';
import type { Clock } from '../runtime/clock.ts';
import type { ShareKey } from '../shares/share-key.ts';
import { type Account, Accounts } from './account.ts';
import { Turns } from './turns.ts';

/** Longest wait, milliseconds. */
export const WAIT_MS_MAX = 5_000;
/** Maximum of requests that wait for a pool. */
const WAITING_MAX = 1_024;
/** A client may repeat a refused request after this time, the same that others wait. */
const RETRY_AFTER_S = WAIT_MS_MAX / 1_000;

export interface PoolOptions {
  /** The name of its units in refusals and metrics: `page reads`. */
  readonly name: string;
  /** Units for the whole process. A larger request is admitted while nobody holds any. */
  readonly capacity: number;
  /**
   * Up to how many times the capacity those may take who have at most their equal part, even while others
   * wait: a subject, and a project (of its subject's part). 0 by default: nobody may.
   */
  readonly beyond?: { readonly ofSubject: number; readonly ofProject: number };
  /** Further units for requests of at most `smallMax`, which may pass larger ones there; 0 by default. */
  readonly extra?: number;
  readonly smallMax?: number;
  /**
   * Maximum units of one subject, and of one of its projects; no maximum by default. The first request of a
   * subject or project may exceed it.
   */
  readonly subjectMax?: number;
  readonly projectMax?: number;
  /** How long a request may wait, milliseconds; {@link WAIT_MS_MAX} by default. With 0, none waits. */
  readonly waitMs?: number;
  /** Maximum of waiting requests. Above it, the latest one of the subject with most of them is refused. */
  readonly waitingMax?: number;
  readonly clock: Clock;
  /** Whether accounts go into debt for what they use while a request waits here; not by default. */
  readonly isOwed?: boolean;
  /** They decide whose turn is next. All pools of a process have the same accounts. */
  readonly accounts?: Accounts;
}

interface Waiter {
  readonly account: Account;
  readonly units: number;
  readonly sinceMs: number;
  readonly grant: (hold: Hold) => void;
  readonly refuse: (error: AppError) => void;
}

/** Called at the end of each wait. */
export type WaitListener = (account: Account, ms: number, outcome: WaitOutcome) => void;
export type WaitOutcome = 'admitted' | 'refused' | 'left';

/** Holds units until it is disposed of. Disposing of it again has no effect. */
export class Hold implements Disposable {
  readonly account: Account;
  readonly #pool: Pool;
  #units = 0;
  #isOver = false;

  /** For {@link Pool} alone. */
  constructor(pool: Pool, account: Account, units: number) {
    this.account = account;
    this.#pool = pool;
    account.users++;
    this.resize(units);
  }

  get units(): number {
    return this.#units;
  }

  /** Sets how many units it holds, even if the pool has no more. */
  resize(units: number): void {
    if (this.#isOver) return;
    const before = this.#units;
    this.#units = units;
    this.#pool.changed(this.account, before, units);
  }

  [Symbol.dispose](): void {
    if (this.#isOver) return;
    this.resize(0);
    this.#isOver = true;
    this.account.users--;
  }
}

/**
 * A bounded resource of the process. A lone subject may have all of it, up to its maximum.
 *
 * A request waits when there are no units. The next one belongs to the subject that has used least of the
 * process, there to the project that has used least, and there it came first. Others cannot take the units
 * that it waits for. Only requests that may go beyond the capacity pass it.
 *
 * One class, because every change of what is held or waits may let the next one in, and must see consistent
 * sums.
 */
export class Pool {
  readonly name: string;
  readonly capacity: number;
  readonly accounts: Accounts;
  /** Holds that were cut off so far. */
  cuts = 0;
  readonly #options: Required<PoolOptions>;
  readonly #number: number;
  readonly #all: Account;
  readonly #turns: Turns<Waiter>;
  readonly #refusals = { rate_limited: 0, overloaded: 0 };
  readonly #onWait: WaitListener[] = [];
  /** Units that small requests hold. */
  #heldBySmall = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: PoolOptions) {
    const { name, capacity, accounts = new Accounts() } = options;
    this.#options = {
      beyond: { ofSubject: 0, ofProject: 0 },
      extra: 0,
      smallMax: 0,
      subjectMax: Number.POSITIVE_INFINITY,
      projectMax: Number.POSITIVE_INFINITY,
      waitMs: WAIT_MS_MAX,
      waitingMax: WAITING_MAX,
      isOwed: false,
      accounts,
      ...options,
    };
    this.name = name;
    this.capacity = capacity;
    this.accounts = accounts;
    this.#number = accounts.newPool();
    this.#all = accounts.all;
    this.#turns = new Turns(accounts, this.#options.isOwed);
  }

  /** All held units. */
  get held(): number {
    return this.#all.of(this.#number).held;
  }

  /** Number of waiting requests. */
  get waiting(): number {
    return this.#turns.size;
  }

  /** Number of subjects that hold units or wait for some. */
  get subjects(): number {
    return this.#all.of(this.#number).active;
  }

  /** Refusals so far, by code. */
  get refusals(): Readonly<Record<'rate_limited' | 'overloaded', number>> {
    return this.#refusals;
  }

  /** Calls `listener` at the end of each wait from now on. */
  onWait(listener: WaitListener): void {
    this.#onWait.push(listener);
  }

  heldOf(account: Account): number {
    return account.of(this.#number).held;
  }

  heldBy(subject: string): number {
    return this.#all.children.get(subject)?.of(this.#number).held ?? 0;
  }

  /**
   * The subject that holds most, if another subject has waited for `waitedMs` and will still hold less after
   * its request is served. The caller then takes units from the returned subject.
   */
  greedySubject(waitedMs: number): string | undefined {
    let most: Account | undefined;
    for (const subject of this.#all.children.values())
      if (most === undefined || this.heldOf(subject) > this.heldOf(most)) most = subject;
    if (most === undefined) return undefined;
    const untilMs = this.#options.clock.monotonic() - waitedMs;
    for (const { account, units, sinceMs } of this.#turns) {
      const { subject } = account;
      if (sinceMs > untilMs || subject === most) continue;
      if (this.heldOf(subject) + units < this.heldOf(most) && this.#isWithinCaps(account, units))
        return most.id;
    }
    return undefined;
  }

  /** Holds units now. @returns undefined when there are too few, or others wait for them. */
  tryTake(key: ShareKey, units: number): Hold | undefined {
    return this.#turns.size > 0 ? undefined : this.tryTakeMore(key, units);
  }

  /** As {@link tryTake}, but even while others wait: for a request that has begun and needs more. */
  tryTakeMore(key: ShareKey, units: number): Hold | undefined {
    const account = this.accounts.of(key);
    if (!this.#isWithinCaps(account, units)) return undefined;
    return this.#isFree(units) || this.#mayGoBeyond(account, units)
      ? new Hold(this, account, units)
      : undefined;
  }

  /** Holds units even if there are too few, for something that exists already. */
  charge(key: ShareKey, units: number): Hold {
    return new Hold(this, this.accounts.of(key), units);
  }

  /**
   * Waits for units and holds them.
   *
   * @param signal ends a wait at once, with its reason.
   * @throws AppError `rate_limited` when the part of the caller is in use, `overloaded` when the whole
   *   capacity is.
   */
  async take(key: ShareKey, units: number, signal?: AbortSignal): Promise<Hold> {
    const hold = this.tryTake(key, units);
    if (hold !== undefined) return hold;
    signal?.throwIfAborted();
    if (this.#options.waitMs === 0) throw this.refusal(key, units);
    const { promise, resolve, reject } = Promise.withResolvers<Hold>();
    const waiter: Waiter = {
      account: this.accounts.of(key),
      units,
      sinceMs: this.#options.clock.monotonic(),
      grant: resolve,
      refuse: reject,
    };
    this.#join(waiter);
    if (signal === undefined) return promise;
    const giveUp = (): void => {
      if (this.#leave(waiter, 'left')) reject(signal.reason);
      this.#serve();
    };
    signal.addEventListener('abort', giveUp, { once: true });
    return promise.finally(() => signal.removeEventListener('abort', giveUp));
  }

  /** Runs a task while holding one unit. @throws AppError as {@link take}, and what the task throws. */
  async run<T>(key: ShareKey, task: () => Promise<T>): Promise<T> {
    using _hold = await this.take(key, 1);
    return await task();
  }

  /** Makes the refusal of a request, and counts it. */
  refusal(key: ShareKey, units: number): AppError {
    return this.#refusalOf(this.accounts.of(key), units);
  }

  /** Refuses requests that have waited too long. A timer calls it while requests wait. */
  sweep(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const { clock, waitMs } = this.#options;
    const endMs = clock.monotonic() - waitMs;
    let firstMs = Number.POSITIVE_INFINITY;
    for (const waiter of [...this.#turns])
      if (waiter.sinceMs <= endMs) this.#reject(waiter);
      else firstMs = Math.min(firstMs, waiter.sinceMs);
    this.#serve();
    if (this.#turns.size > 0) this.#sweepIn(firstMs - endMs);
  }

  /** For {@link Hold} alone. */
  changed(account: Account, before: number, after: number): void {
    this.#count(account, after - before, 0);
    const moreOfSmall = this.#ofSmall(after) - this.#ofSmall(before);
    this.#heldBySmall += moreOfSmall;
    if (after < before || moreOfSmall < 0) this.#serve();
  }

  #ofSmall(units: number): number {
    return units <= this.#options.smallMax ? units : 0;
  }

  #count(account: Account, held: number, waiting: number): void {
    // The change in the number of active children of the next account up.
    let more = 0;
    for (let one: Account | undefined = account; one !== undefined; one = one.parent) {
      const use = one.of(this.#number);
      use.active += more;
      const wasActive = use.held > 0 || use.waiting > 0;
      use.held += held;
      use.waiting += waiting;
      more = Number(use.held > 0 || use.waiting > 0) - Number(wasActive);
    }
  }

  #join(waiter: Waiter): void {
    const { waitMs, waitingMax } = this.#options;
    this.#turns.add(waiter.account, waiter);
    this.#count(waiter.account, 0, 1);
    this.#serve();
    if (this.#turns.size > waitingMax) this.#reject(this.#latest());
    if (this.#turns.size > 0 && this.#timer === undefined) this.#sweepIn(waitMs);
  }

  /** @returns false when the request no longer waits. */
  #leave(waiter: Waiter, outcome: WaitOutcome): boolean {
    if (!this.#turns.remove(waiter.account, waiter)) return false;
    this.#forget(waiter, outcome);
    return true;
  }

  #forget({ account, sinceMs }: Waiter, outcome: WaitOutcome): void {
    this.#count(account, 0, -1);
    const ms = this.#options.clock.monotonic() - sinceMs;
    for (const listener of this.#onWait) listener(account, ms, outcome);
  }

  #reject(waiter: Waiter): void {
    const error = this.#refusalOf(waiter.account, waiter.units);
    if (this.#leave(waiter, 'refused')) waiter.refuse(error);
  }

  /** Admits requests while there are units for the next one. */
  #serve(): void {
    while (this.#turns.size > 0) {
      let next = this.#turns.peek(({ account, units }) => this.#isWithinCaps(account, units));
      if (next !== undefined && !this.#isFree(next.units))
        next = this.#turns.peek(
          ({ account, units }) =>
            this.#isWithinCaps(account, units) &&
            (this.#isFreeForSmall(units) || this.#mayGoBeyond(account, units)),
          this.#options.extra > 0,
        );
      if (next === undefined) return;
      this.#turns.take(next.account, next);
      const hold = new Hold(this, next.account, next.units);
      this.#forget(next, 'admitted');
      next.grant(hold);
    }
  }

  #isFree(units: number): boolean {
    const { held } = this;
    const ofCapacity = held - Math.min(this.#heldBySmall, this.#options.extra);
    return held === 0 || ofCapacity + units <= this.capacity || this.#isFreeForSmall(units);
  }

  /** Whether a small request may have units although a larger one waits. */
  #isFreeForSmall(units: number): boolean {
    const { smallMax, extra } = this.#options;
    return units <= smallMax && this.#heldBySmall + units <= extra;
  }

  /** Whether a request may have units although the capacity is in use. */
  #mayGoBeyond(account: Account, units: number): boolean {
    const { beyond, smallMax } = this.#options;
    // Each subject can always have its part for small requests, whatever large requests of others hold.
    const isSmall = units <= smallMax && this.#heldBySmall + units <= this.capacity;
    if (beyond.ofSubject > 0 && isSmall && this.#isWithinPart(account.subject, units)) return true;
    const held = this.held + units;
    return (
      (held <= this.capacity * beyond.ofSubject && this.#isWithinPart(account.subject, units)) ||
      (held <= this.capacity * beyond.ofProject && this.#isWithinPart(account, units))
    );
  }

  /** Whether a subject or project would have at most its equal part. One that has nothing always may. */
  #isWithinPart(account: Account, units: number): boolean {
    const held = this.heldOf(account);
    if (held === 0) return true;
    const parent = account.parent as Account;
    const ofParent = parent === this.#all ? this.capacity : this.capacity / Math.max(1, this.subjects);
    return held + units <= ofParent / Math.max(1, parent.of(this.#number).active);
  }

  #isWithinCaps(account: Account, units: number): boolean {
    const { subjectMax, projectMax } = this.#options;
    const [ofProject, ofSubject] = [this.heldOf(account), this.heldOf(account.subject)];
    return (
      (ofProject === 0 || ofProject + units <= projectMax) &&
      (ofSubject === 0 || ofSubject + units <= subjectMax)
    );
  }

  /** The latest request of the subject with most waiting requests. */
  #latest(): Waiter {
    const waitingOf = ({ account }: Waiter) => account.subject.of(this.#number).waiting;
    let latest: Waiter | undefined;
    for (const waiter of this.#turns) {
      const more = latest === undefined ? 1 : waitingOf(waiter) - waitingOf(latest);
      if (more > 0 || (more === 0 && waiter.sinceMs >= (latest?.sinceMs ?? 0))) latest = waiter;
    }
    if (latest === undefined) throw new Error('a full pool has no waiting request');
    return latest;
  }

  #refusalOf(account: Account, units: number): AppError {
    const { name, capacity } = this;
    const isOwn =
      !this.#isWithinCaps(account, units) ||
      !this.#isWithinPart(account.subject, units) ||
      !this.#isWithinPart(account, units);
    const code = isOwn ? 'rate_limited' : 'overloaded';
    this.#refusals[code]++;
    const [ofSubject, ofProject] = [this.heldOf(account.subject), this.heldOf(account)];
    const detail = isOwn
      ? `your share of ${name} is in use: ${ofSubject} of ${capacity}, ${ofProject} of them by this project`
      : `the service has no ${name} to spare`;
    return new AppError(code, { detail, retryAfterS: RETRY_AFTER_S });
  }

  #sweepIn(ms: number): void {
    this.#timer = setTimeout(() => this.sweep(), Math.max(1, ms)).unref();
  }
}
