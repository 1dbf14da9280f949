/**
 * Time, as a port, so that tests can move it.
 *
 * Two clocks, because each lies in its own way: the wall clock can be set back, the monotonic one stands
 * still while the machine sleeps.
 */
export interface Clock {
  /** Wall clock, milliseconds since 1970 (UTC). */
  now(): number;
  /** Monotonic clock, milliseconds since an arbitrary moment; never goes back. */
  monotonic(): number;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
};

/** An instant on both clocks. */
export interface Instant {
  readonly wallMs: number;
  readonly monotonicMs: number;
}

export function instant(clock: Clock): Instant {
  return { wallMs: clock.now(), monotonicMs: clock.monotonic() };
}

/**
 * Milliseconds since `start` by whichever clock says more, so that neither can keep something alive too long.
 */
export function ageMs(clock: Clock, start: Instant): number {
  return Math.max(clock.now() - start.wallMs, clock.monotonic() - start.monotonicMs);
}

/** Runs a task at an interval until it is disposed of. Keeps no process alive. */
export function every(ms: number, task: () => void): Disposable {
  const timer = setInterval(task, ms).unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}
