import type { Clock } from '@bundoc/shared/runtime/clock';

/** Bounds how often something is done, at a rate that may change. At most one second's worth is saved up. */
export class TokenBucket {
  readonly #clock: Clock;
  /** One second's worth at most. */
  #tokens = 0;
  #filledMs: number | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Takes a token, if there is one at the present rate. */
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
