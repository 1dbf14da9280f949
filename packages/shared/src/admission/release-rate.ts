import type { Clock } from '../runtime/clock.ts';

/** The length of a time window. */
const WINDOW_MS = 5_000;

/** Measures how fast units are released, over the present time window and the previous one. */
export class ReleaseRate {
  readonly #clock: Clock;
  #windowSinceMs: number;
  #released = 0;
  #releasedBefore = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#windowSinceMs = clock.monotonic();
  }

  note(units: number): void {
    this.#rollWindow();
    this.#released += units;
  }

  /** How long it takes until this many units are released, seconds; undefined while none are. */
  secondsUntil(units: number): number | undefined {
    this.#rollWindow();
    const ageMs = this.#clock.monotonic() - this.#windowSinceMs;
    const perMs = (this.#releasedBefore + this.#released) / (WINDOW_MS + ageMs);
    return perMs === 0 ? undefined : units / perMs / 1_000;
  }

  #rollWindow(): void {
    const nowMs = this.#clock.monotonic();
    const ageMs = nowMs - this.#windowSinceMs;
    if (ageMs < WINDOW_MS) return;
    this.#releasedBefore = ageMs < 2 * WINDOW_MS ? this.#released : 0;
    this.#released = 0;
    this.#windowSinceMs = nowMs;
  }
}
