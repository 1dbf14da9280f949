import type { Clock } from '../runtime/clock.ts';

/** A clock that stands still until it is moved. Starts far from zero, as real clocks do. */
export class FakeClock implements Clock {
  #wallMs = Date.UTC(2026, 0, 1);
  #monotonicMs = 1_000_000;

  now(): number {
    return this.#wallMs;
  }

  monotonic(): number {
    return this.#monotonicMs;
  }

  /** Both clocks go on. */
  advance(ms: number): void {
    this.#wallMs += ms;
    this.#monotonicMs += ms;
  }

  /** Only the wall clock goes on: the machine slept. */
  sleep(ms: number): void {
    this.#wallMs += ms;
  }

  /** Only the wall clock is moved: somebody set it. */
  setWall(ms: number): void {
    this.#wallMs = ms;
  }
}
