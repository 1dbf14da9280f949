import { AppError } from '../contract/app-error.ts';
import type { Clock } from '../runtime/clock.ts';
import { Held, type Hold, type HoldOwner } from './hold.ts';
import { ReleaseRate } from './release-rate.ts';
import {
  isBefore,
  type ProjectAccount,
  ShareAccounts,
  type SubjectAccount,
  type Waiter,
} from './share-accounts.ts';
import type { ShareKey } from './share-key.ts';

/** Longest wait, milliseconds. */
export const WAIT_MS_MAX = 5_000;
/** Maximum waiting requests of one share. */
export const WAITING_MAX = 1_024;
const RETRY_AFTER_S_MAX = 30;
/** The part of the reserve that one subject may use, so that some is left for others. */
const RESERVE_OF_SUBJECT = 1 / 4;

export interface ShareOptions {
  /** Name of the resource in refusals and metrics: `answers`. */
  readonly name: string;
  /** Units for the whole process. */
  readonly capacity: number;
  /** Units of the capacity that are reserved for requests of at most `smallMax` units; none by default. */
  readonly reserve?: number;
  readonly smallMax?: number;
  /**
   * Maximum units of one subject, and of one of its projects; no cap by default. A subject or project that
   * holds nothing may exceed it.
   */
  readonly subjectMax?: number;
  readonly projectMax?: number;
  /** How long a request may wait; 0 for no waiting; {@link WAIT_MS_MAX} by default. */
  readonly waitMs?: number;
  /** Maximum waiting units that are in memory already; no limit by default. */
  readonly waitingUnitsMax?: number;
  readonly clock: Clock;
}

/**
 * Shares a resource of the process fairly: by subject, and by project within a subject. A sole subject gets
 * all of it, up to the caps.
 *
 * Requests that find no room wait in a bounded queue. Room goes to the subject that holds least, and within
 * it to the project that holds least. So no subject waits while another that holds more is served, unless its
 * own caps are reached.
 *
 * One class, because every change of a hold or a queue may serve the next request, and must see consistent
 * sums.
 */
export class Share {
  readonly name: string;
  readonly capacity: number;
  readonly #clock: Clock;
  readonly #waitMs: number;
  readonly #reserve: number;
  readonly #smallMax: number;
  readonly #subjectMax: number;
  readonly #projectMax: number;
  readonly #waitingUnitsMax: number;
  readonly #accounts = new ShareAccounts();
  readonly #releases: ReleaseRate;
  /** Holds of the reserve, oldest first. */
  readonly #ofReserve = new Set<Held>();
  #held = 0;
  #heldOfReserve = 0;
  #waiting = 0;
  #unitsWaiting = 0;
  #inMemoryWaiting = 0;
  #places = 0;
  #timer: NodeJS.Timeout | undefined;
  readonly #refusals = { rate_limited: 0, overloaded: 0 };
  readonly #owner: HoldOwner = {
    change: (held, units) => {
      const more = units - held.units;
      held.units = units;
      this.#add(held, more);
      const hasOutgrown = held.ofReserve && units > this.#smallMax;
      if (hasOutgrown) this.#leaveReserve(held);
      if (more < 0 || hasOutgrown) this.#serve();
    },
    end: (held) => {
      this.#add(held, -held.units);
      held.units = 0;
      this.#ofReserve.delete(held);
      this.#accounts.forget(held.account);
      this.#serve();
    },
  };

  constructor(options: ShareOptions) {
    const { name, capacity, clock, reserve = 0, smallMax = 0, waitMs = WAIT_MS_MAX } = options;
    const { subjectMax = Number.POSITIVE_INFINITY, projectMax = Number.POSITIVE_INFINITY } = options;
    this.name = name;
    this.capacity = capacity;
    this.#clock = clock;
    this.#waitMs = waitMs;
    this.#reserve = Math.min(reserve, capacity);
    this.#smallMax = smallMax;
    this.#subjectMax = subjectMax;
    this.#projectMax = projectMax;
    this.#waitingUnitsMax = options.waitingUnitsMax ?? Number.POSITIVE_INFINITY;
    this.#releases = new ReleaseRate(clock);
  }

  /** All held units. */
  get held(): number {
    return this.#held + this.#heldOfReserve;
  }

  /** Number of waiting requests. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Number of subjects that hold or wait for something. */
  get subjects(): number {
    return this.#accounts.subjects.size;
  }

  /** Refusals so far, by code. */
  get refusals(): Readonly<Record<'rate_limited' | 'overloaded', number>> {
    return this.#refusals;
  }

  heldBy(subject: string): number {
    return this.#accounts.subjects.get(subject)?.held ?? 0;
  }

  /**
   * The subject that holds most, if a request of another subject has waited for `waitedMs` and that subject
   * will hold less once it is served. The caller then takes room from the returned subject.
   */
  greedySubject(waitedMs: number): string | undefined {
    let most: SubjectAccount | undefined;
    for (const subject of this.#accounts.subjects.values())
      if (most === undefined || subject.held > most.held) most = subject;
    if (most === undefined) return undefined;
    const untilMs = this.#clock.monotonic() - waitedMs;
    for (const { account, units, sinceMs } of this.#accounts.waiters()) {
      const { subject } = account;
      if (sinceMs > untilMs || subject === most || subject.held + units >= most.held) continue;
      if (this.#isWithinCaps(account, units)) return most.id;
    }
    return undefined;
  }

  /** Holds units now. @returns undefined when there is no room, or others wait for it. */
  tryTake(key: ShareKey, units: number): Hold | undefined {
    if (this.#waiting > 0) return undefined;
    const account = this.#accounts.of(key);
    if (!this.#isWithinCaps(account, units)) return undefined;
    if (this.#hasRoom(units)) return this.#hold(account, units, false);
    return this.#hasReserve(account, units) ? this.#hold(account, units, true) : undefined;
  }

  /** Holds units whether or not there is room, for data that is in memory already. */
  charge(key: ShareKey, units: number): Hold {
    return this.#hold(this.#accounts.of(key), units, false);
  }

  /**
   * Holds units as soon as there is room.
   *
   * @param signal leaves the queue at once when it is aborted; its reason is thrown.
   * @param inMemory those of the units that are in memory already: 0 for a reservation.
   * @throws AppError `rate_limited` when the caller's own share is in use, `overloaded` when the whole
   *   capacity is.
   */
  async take(key: ShareKey, units: number, signal?: AbortSignal, inMemory = units): Promise<Hold> {
    const hold = this.tryTake(key, units);
    if (hold !== undefined) return hold;
    signal?.throwIfAborted();
    if (this.#waitMs === 0) throw this.refusal(key, units);
    const { promise, resolve, reject } = Promise.withResolvers<Hold>();
    const waiter: Waiter = {
      ...{
        units,
        inMemory,
        place: this.#places++,
        sinceMs: this.#clock.monotonic(),
        account: this.#accounts.of(key),
      },
      ...{ grant: resolve, refuse: reject },
    };
    this.#join(waiter);
    if (signal === undefined) return promise;
    const giveUp = (): void => {
      if (!this.#leave(waiter)) return;
      reject(signal.reason);
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

  /** Counts the refusal of a request without room. */
  countRefusal(key: ShareKey, units: number): void {
    this.#countRefusal(this.#accounts.of(key), units);
  }

  /** The refusal of a request without room. Counts it. */
  refusal(key: ShareKey, units: number): AppError {
    return this.#refusalOf(this.#accounts.of(key), units);
  }

  /** Refuses requests that have waited too long. A timer calls it while any wait. */
  sweep(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const endMs = this.#clock.monotonic() - this.#waitMs;
    const waiters = [...this.#accounts.waiters()];
    for (const waiter of waiters) if (waiter.sinceMs <= endMs) this.#reject(waiter);
    this.#serve();
    const firstMs = waiters.reduce(
      (first, { sinceMs }) => (sinceMs > endMs ? Math.min(first, sinceMs) : first),
      Number.POSITIVE_INFINITY,
    );
    if (this.#waiting > 0) this.#sweepIn(firstMs - endMs);
  }

  #hold(account: ProjectAccount, units: number, ofReserve: boolean): Hold {
    this.#accounts.remember(account);
    const held = new Held(this.#owner, account, ofReserve);
    held.units = units;
    if (ofReserve) this.#ofReserve.add(held);
    this.#add(held, units);
    return held;
  }

  #add({ account, ofReserve }: Held, more: number): void {
    account.held += more;
    account.subject.held += more;
    if (ofReserve) {
      account.subject.heldOfReserve += more;
      this.#heldOfReserve += more;
    } else this.#held += more;
    if (more < 0) this.#releases.note(-more);
  }

  /** From now on it holds what everyone may hold, whether or not there is room. */
  #leaveReserve(held: Held): void {
    held.ofReserve = false;
    this.#ofReserve.delete(held);
    held.account.subject.heldOfReserve -= held.units;
    this.#heldOfReserve -= held.units;
    this.#held += held.units;
  }

  #join(waiter: Waiter): void {
    const { account, units, inMemory } = waiter;
    this.#accounts.remember(account);
    this.#queueOf(waiter).push(waiter);
    account.subject.waiting++;
    account.subject.waitingUnits += inMemory;
    this.#waiting++;
    this.#unitsWaiting += units;
    this.#inMemoryWaiting += inMemory;
    this.#serve();
    while (this.#waiting > WAITING_MAX) this.#reject(this.#lastOf(({ waiting }) => waiting));
    while (this.#inMemoryWaiting > this.#waitingUnitsMax)
      this.#reject(
        this.#lastOf(
          ({ waitingUnits }) => waitingUnits,
          (other) => other.inMemory > 0,
        ),
      );
    if (this.#waiting > 0 && this.#timer === undefined) this.#sweepIn(this.#waitMs);
  }

  /** @returns false when it no longer waits. */
  #leave(waiter: Waiter): boolean {
    const queue = this.#queueOf(waiter);
    const at = queue.indexOf(waiter);
    if (at < 0) return false;
    queue.splice(at, 1);
    waiter.account.subject.waiting--;
    waiter.account.subject.waitingUnits -= waiter.inMemory;
    this.#waiting--;
    this.#unitsWaiting -= waiter.units;
    this.#inMemoryWaiting -= waiter.inMemory;
    this.#accounts.forget(waiter.account);
    return true;
  }

  #reject(waiter: Waiter): void {
    this.#leave(waiter);
    waiter.refuse(this.#refusalOf(waiter.account, waiter.units));
  }

  /** Grants requests while there is room for the next in turn. */
  #serve(): void {
    while (this.#waiting > 0) {
      const next = this.#next(false);
      if (next !== undefined && this.#hasRoom(next.units)) {
        this.#grant(next, false);
        continue;
      }
      // Smaller requests do not get the room that the next one waits for: they have the reserve.
      const small = this.#next(true);
      if (small === undefined) return;
      this.#grant(small, true);
    }
    this.#refillReserve();
  }

  /** Gives the reserve back what it lent, while nobody waits for the room that this takes. */
  #refillReserve(): void {
    for (const held of this.#ofReserve) {
      if (!this.#hasRoom(held.units)) return;
      this.#leaveReserve(held);
    }
  }

  #grant(waiter: Waiter, ofReserve: boolean): void {
    // Hold before leaving the queue, so that the account is kept.
    const hold = this.#hold(waiter.account, waiter.units, ofReserve);
    this.#leave(waiter);
    waiter.grant(hold);
  }

  /**
   * The next request in turn, among those within their caps.
   *
   * @param ofReserve only requests for which the reserve has room.
   */
  #next(ofReserve: boolean): Waiter | undefined {
    let best: Waiter | undefined;
    for (const subject of this.#accounts.subjects.values()) {
      if (subject.waiting === 0 || (best !== undefined && subject.held > best.account.subject.held)) continue;
      for (const { small, large } of subject.projects.values())
        for (const first of ofReserve ? [small[0]] : [small[0], large[0]]) {
          if (first === undefined || !this.#isWithinCaps(first.account, first.units)) continue;
          if (ofReserve && !this.#hasReserve(first.account, first.units)) continue;
          if (best === undefined || isBefore(first, best)) best = first;
        }
    }
    return best;
  }

  #queueOf({ account, units }: Waiter): Waiter[] {
    return units <= this.#smallMax ? account.small : account.large;
  }

  #hasRoom(units: number): boolean {
    return this.#held === 0 || this.#held + units <= this.capacity - this.#reserve;
  }

  #hasReserve({ subject }: ProjectAccount, units: number): boolean {
    const ofSubject = subject.heldOfReserve;
    return (
      units <= this.#smallMax &&
      this.#heldOfReserve + units <= this.#reserve &&
      (ofSubject === 0 || ofSubject + units <= this.#reserve * RESERVE_OF_SUBJECT)
    );
  }

  #isWithinCaps({ held, subject }: ProjectAccount, units: number): boolean {
    return (
      (held === 0 || held + units <= this.#projectMax) &&
      (subject.held === 0 || subject.held + units <= this.#subjectMax)
    );
  }

  /** The latest matching request of the subject with the longest queue. */
  #lastOf(
    lengthOf: (subject: SubjectAccount) => number,
    counts: (waiter: Waiter) => boolean = () => true,
  ): Waiter {
    let last: Waiter | undefined;
    for (const waiter of this.#accounts.waiters()) {
      if (!counts(waiter)) continue;
      const longer =
        last === undefined ? 1 : lengthOf(waiter.account.subject) - lengthOf(last.account.subject);
      if (longer > 0 || (longer === 0 && waiter.place > (last?.place ?? -1))) last = waiter;
    }
    if (last === undefined) throw new Error('a full queue has no waiting request');
    return last;
  }

  /** @returns the code of the refusal. */
  #countRefusal(account: ProjectAccount, units: number): 'rate_limited' | 'overloaded' {
    const { held } = account.subject;
    const sharers = Math.max(1, this.#accounts.subjects.size);
    const fairShare = (this.capacity - this.#reserve) / sharers;
    const isOwn = !this.#isWithinCaps(account, units) || (held > 0 && held + units > fairShare);
    const code = isOwn ? 'rate_limited' : 'overloaded';
    this.#refusals[code]++;
    return code;
  }

  #refusalOf(account: ProjectAccount, units: number): AppError {
    const code = this.#countRefusal(account, units);
    const detail =
      code === 'rate_limited'
        ? `your share of ${this.name} is in use`
        : `the service has no ${this.name} to spare`;
    return new AppError(code, { detail, retryAfterS: this.#retryAfterS(units) });
  }

  /** When there may be room: from the waiting units and the rate of releases. */
  #retryAfterS(units: number): number {
    const afterS = this.#releases.secondsUntil(this.#unitsWaiting + units) ?? WAIT_MS_MAX / 1_000;
    return Math.min(RETRY_AFTER_S_MAX, Math.max(1, Math.ceil(afterS)));
  }

  #sweepIn(ms: number): void {
    this.#timer = setTimeout(() => this.sweep(), Math.max(1, ms)).unref();
  }
}
