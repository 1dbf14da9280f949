import type { Clock } from '@bundoc/shared/runtime/clock';

/** Limits the rate of an action; the rate may change. It saves up at most one second's worth. */
export class TokenBucket {
  readonly #clock: Clock;
  /** At most one second's worth. */
  #tokens = 0;
  #filledMs: number | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Takes a token if the current rate allows it. */
  take(perSecond: number): boolean {
    const nowMs = this.#clock.monotonic();
    const earned = this.#filledMs === undefined ? perSecond : ((nowMs - this.#filledMs) * perSecond) / 1_000;
    this.#filledMs = nowMs;
    this.#tokens = Math.min(perSecond, this.#tokens + earned);
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}
