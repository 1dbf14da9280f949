import type { Clock } from '../runtime/clock.ts';

/** How long something is counted before its count is reported, milliseconds. */
export const MINUTE_MS = 60_000;
/** The owner for all owners without room. Its minutes do not count towards the maximum. */
export const OTHERS = 'others';
const MINUTES_MAX = 1_024;

/** Something of an owner that is counted. */
export interface Minute<T> {
  /** The tenant, or {@link OTHERS}. */
  readonly owner: string;
  readonly name: string;
  readonly value: T;
  /** When it began, in ISO 8601. */
  readonly since: string;
}

export interface MinutesOptions<T> {
  readonly clock: Clock;
  /** Maximum of concurrent minutes, without those of {@link OTHERS}. */
  readonly max?: number;
  /** Reports a minute that has ended. It may begin the same minute again. */
  readonly onEnd: (minute: Minute<T>) => void;
}

interface Running<T> extends Minute<T> {
  /** By the monotonic clock. */
  readonly endMs: number;
}

/**
 * Counts events that callers can cause without limit, and reports them once a minute instead of each time.
 *
 * A minute begins with the first event of a name, and a timer ends it. Memory is bounded. When it is full,
 * the oldest minute of the owner with most ends early, to make room for an owner with fewer. So no owner can
 * prevent that others are counted by name.
 */
export class Minutes<T> implements Disposable {
  readonly #options: MinutesOptions<T>;
  /** In the order of their starts. */
  readonly #running = new Map<string, Running<T>>();
  /** The number of minutes of each owner. */
  readonly #ofOwner = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;
  /** While a minute ends for good, it does not begin again. */
  #isFinal = false;

  constructor(options: MinutesOptions<T>) {
    this.#options = options;
  }

  /** The value of the running minute; undefined without one. */
  get(owner: string, name: string): T | undefined {
    const minute = this.#running.get(keyOf(owner, name));
    if (minute !== undefined && this.#options.clock.monotonic() >= minute.endMs) this.#end(minute);
    return this.#running.get(keyOf(owner, name))?.value;
  }

  /** Begins a minute, in place of a running one of the same name. @returns false when there is no room. */
  begin(owner: string, name: string, value: T): boolean {
    this.delete(owner, name);
    if (this.#isFinal || (owner !== OTHERS && !this.#hasRoomFor(owner))) return false;
    const { clock } = this.#options;
    const since = new Date(clock.now()).toISOString();
    this.#running.set(keyOf(owner, name), {
      owner,
      name,
      value,
      since,
      endMs: clock.monotonic() + MINUTE_MS,
    });
    this.#ofOwner.set(owner, (this.#ofOwner.get(owner) ?? 0) + 1);
    if (this.#timer === undefined) this.#wait();
    return true;
  }

  /** Removes a minute without a report. */
  delete(owner: string, name: string): void {
    if (!this.#running.delete(keyOf(owner, name))) return;
    const left = (this.#ofOwner.get(owner) ?? 0) - 1;
    if (left === 0) this.#ofOwner.delete(owner);
    else this.#ofOwner.set(owner, left);
  }

  /** Ends the minutes that have passed. A timer calls it; so do tests with their own clock. */
  sweep(): void {
    try {
      for (const minute of this.#running.values()) {
        if (this.#options.clock.monotonic() < minute.endMs) break;
        this.#end(minute);
      }
    } finally {
      if (this.#timer === undefined) this.#wait();
    }
  }

  /** Ends all minutes now, so that a shutdown loses no count. */
  flush(): void {
    for (const minute of this.#running.values()) this.#endForGood(minute);
  }

  /** Ends all minutes, and begins none from then on. */
  [Symbol.dispose](): void {
    this.flush();
    this.#isFinal = true;
    clearTimeout(this.#timer);
  }

  /** Sweeps when the oldest minute ends. */
  #wait(): void {
    const [oldest] = this.#running.values();
    if (oldest === undefined) return;
    const remainingMs = Math.max(0, oldest.endMs - this.#options.clock.monotonic());
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.sweep();
    }, remainingMs).unref();
  }

  #hasRoomFor(owner: string): boolean {
    const { max = MINUTES_MAX } = this.#options;
    const isFull = () => this.#running.size - (this.#ofOwner.get(OTHERS) ?? 0) >= max;
    if (isFull()) this.sweep();
    if (!isFull()) return true;
    let busiest: string | undefined;
    let most = (this.#ofOwner.get(owner) ?? 0) + 1;
    for (const [other, number] of this.#ofOwner)
      if (number > most && other !== OTHERS) [busiest, most] = [other, number];
    if (busiest === undefined) return false;
    const oldest = this.#running.values().find((minute) => minute.owner === busiest);
    if (oldest !== undefined) this.#endForGood(oldest);
    return true;
  }

  #endForGood(minute: Minute<T>): void {
    const before = this.#isFinal;
    this.#isFinal = true;
    try {
      this.#end(minute);
    } finally {
      this.#isFinal = before;
    }
  }

  #end(minute: Minute<T>): void {
    this.delete(minute.owner, minute.name);
    this.#options.onEnd(minute);
  }
}

function keyOf(owner: string, name: string): string {
  return `${owner} ${name}`;
}
