import { ageMs, type Clock, type Instant, instant } from './clock.ts';

/**
 * Remembers the outcome of a costly check for a moment and shares one run among all who ask meanwhile, so
 * that an open endpoint such as `/ready` cannot be used to hammer the disk.
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
