/**
 * A port for time, so that tests can control it.
 *
 * It has two clocks, because each can be wrong: the wall clock can be set back, and the monotonic one stops
 * while the machine sleeps.
 */
export interface Clock {
  /** The wall clock, milliseconds since 1970 (UTC). */
  now(): number;
  /** The monotonic clock, milliseconds since an arbitrary moment; never goes back. */
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
 * Milliseconds since `start` by the clock that says more, so that neither can keep something alive too long.
 */
export function ageMs(clock: Clock, start: Instant): number {
  return Math.max(clock.now() - start.wallMs, clock.monotonic() - start.monotonicMs);
}

/**
 * The wall clock, or `start` plus the monotonic clock when that is earlier. For ends that cannot be undone: a
 * wall clock that is set forward reaches none of them early. One that is set back only delays them.
 */
export function earlierMs(clock: Clock, start: Instant): number {
  return Math.min(clock.now(), start.wallMs + (clock.monotonic() - start.monotonicMs));
}

/** Runs a task at an interval until it is disposed of. Does not keep the process alive. */
export function every(ms: number, task: () => void): Disposable {
  const timer = setInterval(task, ms).unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}
