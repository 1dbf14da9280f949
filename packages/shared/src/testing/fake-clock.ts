import type { Clock } from '../runtime/clock.ts';

/** A clock that stands still until a test moves it. It starts far from zero, like real clocks. */
export class FakeClock implements Clock {
  #wallMs = Date.UTC(2026, 0, 1);
  #monotonicMs = 1_000_000;

  now(): number {
    return this.#wallMs;
  }

  monotonic(): number {
    return this.#monotonicMs;
  }

  /** Both clocks advance. */
  advance(ms: number): void {
    this.#wallMs += ms;
    this.#monotonicMs += ms;
  }

  /** Only the wall clock advances, as when the machine sleeps. */
  sleep(ms: number): void {
    this.#wallMs += ms;
  }

  /** Only the wall clock changes, as when an administrator sets it. */
  setWall(ms: number): void {
    this.#wallMs = ms;
  }
}
