import { LRUCache } from 'lru-cache';
import { AppError } from '../contract/app-error.ts';
import type { Clock } from './clock.ts';

export interface RateLimitOptions {
  readonly clock: Clock;
  /** The long-term rate; 0 for no limit. */
  readonly perSecond: number;
  /** How many may come at once after a pause; at least 1. */
  readonly burst: number;
}

/** Tracked callers. The least recently seen one is forgotten first, and starts afresh. */
const REMEMBERED_MAX = 10_000;

/**
 * A rate limit per caller by the generic cell rate algorithm (ITU-T I.371): one number per caller, no timers.
 * Counts in this process only, by the monotonic clock.
 */
export class RateLimit {
  readonly #clock: Clock;
  readonly #intervalMs: number;
  readonly #aheadMsMax: number;
  /**
   * The theoretical arrival time of each caller: when its past actions end at an even pace. It begins with
   * the first caller, because a cache reserves the memory of all its entries: a service has a dozen limits,
   * most of which nobody uses for long.
   */
  #dueMs: LRUCache<string, number> | undefined;

  constructor({ clock, perSecond, burst }: RateLimitOptions) {
    this.#clock = clock;
    this.#intervalMs = perSecond === 0 ? 0 : 1_000 / perSecond;
    this.#aheadMsMax = this.#intervalMs * (burst - 1);
  }

  /**
   * Counts `times` actions. Many at once are allowed if one would be; the caller then waits for the surplus.
   *
   * @throws AppError `rate_limited`, which counts nothing.
   */
  take(caller: string, times = 1): void {
    takeFromAll([[this, caller]], times);
  }

  /** Counts past actions, whether or not they exceed the limit. */
  charge(caller: string, times: number): void {
    if (this.#intervalMs === 0) return;
    this.#dueMs ??= new LRUCache({ max: REMEMBERED_MAX });
    const dueMs = Math.max(this.#clock.monotonic(), this.#dueMs.get(caller) ?? 0);
    this.#dueMs.set(caller, dueMs + times * this.#intervalMs);
  }

  /** Milliseconds until the caller may act again; 0 or less for now. */
  waitMs(caller: string): number {
    return (this.#dueMs?.get(caller) ?? 0) - this.#clock.monotonic() - this.#aheadMsMax;
  }
}

/**
 * Counts `times` actions in each limit if all of them allow it.
 *
 * @throws AppError `rate_limited` with the longest wait, which counts nothing in any limit.
 */
export function takeFromAll(limits: readonly (readonly [RateLimit, caller: string])[], times: number): void {
  const waitMs = Math.max(...limits.map(([limit, caller]) => limit.waitMs(caller)));
  if (waitMs > 0) throw new AppError('rate_limited', { retryAfterS: waitMs / 1_000 });
  for (const [limit, caller] of limits) limit.charge(caller, times);
}
