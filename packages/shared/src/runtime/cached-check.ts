import { ageMs, type Clock, type Instant, instant } from './clock.ts';

/**
 * Caches the result of a costly check for a moment, and shares one run among concurrent callers. So an open
 * endpoint such as `/ready` cannot be used to overload the disk.
 *
 * @param check must not reject.
 */
export function cachedCheck<T>(clock: Clock, keepMs: number, check: () => Promise<T>): () => Promise<T> {
  let kept: { at: Instant; outcome: T } | undefined;
  let running: Promise<T> | undefined;
  return async () => {
    if (kept !== undefined && ageMs(clock, kept.at) < keepMs) return kept.outcome;
    running ??= check().then((outcome) => {
      kept = { at: instant(clock), outcome };
      running = undefined;
      return outcome;
    });
    return running;
  };
}
