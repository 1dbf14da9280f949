import { LRUCache } from 'lru-cache';
import { AppError } from '../contract/app-error.ts';
import type { Clock } from './clock.ts';

export interface RateLimitOptions {
  readonly clock: Clock;
  /** How often in the long run; 0 for no limit. */
  readonly perSecond: number;
  /** How often at once, after a pause; at least 1. */
  readonly burst: number;
}

/** Callers that are remembered; the one seen longest ago is forgotten first, and begins again. */
const REMEMBERED_MAX = 10_000;

/**
 * A bound on how often something is done for one caller, by the generic cell rate algorithm (ITU-T I.371):
 * one number a caller, no timers. Counts in this process alone, by the monotonic clock.
 */
export class RateLimit {
  readonly #clock: Clock;
  readonly #intervalMs: number;
  readonly #aheadMsMax: number;
  /** When all that was done would have been done at an even pace, by caller. */
  readonly #dueMs = new LRUCache<string, number>({ max: REMEMBERED_MAX });

  constructor({ clock, perSecond, burst }: RateLimitOptions) {
    this.#clock = clock;
    this.#intervalMs = perSecond === 0 ? 0 : 1_000 / perSecond;
    this.#aheadMsMax = this.#intervalMs * (burst - 1);
  }

  /**
   * Counts `times` more. Many at once pass when one would; what they are too many by is waited for
   * afterwards.
   *
   * @throws AppError `rate_limited`, which counts nothing.
   */
  take(caller: string, times = 1): void {
    const nowMs = this.#clock.monotonic();
    const dueMs = Math.max(nowMs, this.#dueMs.get(caller) ?? 0);
    const earlyMs = dueMs - nowMs - this.#aheadMsMax;
    if (earlyMs > 0) throw new AppError('rate_limited', { retryAfterS: earlyMs / 1_000 });
    this.#dueMs.set(caller, dueMs + times * this.#intervalMs);
  }

  /** Counts what was done already, whether or not it is too much. */
  charge(caller: string, times: number): void {
    const dueMs = Math.max(this.#clock.monotonic(), this.#dueMs.get(caller) ?? 0);
    this.#dueMs.set(caller, dueMs + times * this.#intervalMs);
  }
}
