export interface BackoffBounds {
  /** The longest wait after the first failure, milliseconds. It doubles with each further failure. */
  readonly firstMs: number;
  /** The longest wait after any failure, milliseconds. */
  readonly maxMs: number;
}

/**
 * How long to wait before the next try, milliseconds: a random time up to a bound that doubles with each
 * failure. So many callers do not retry at the same moment (full jitter; M. Brooker, "Exponential Backoff And
 * Jitter", 2015).
 *
 * @param failures so far, at least 1.
 * @param random the source of jitter, 0 to 1.
 */
export function backoffMs(
  { firstMs, maxMs }: BackoffBounds,
  failures: number,
  random: () => number = Math.random,
): number {
  return random() * Math.min(maxMs, firstMs * 2 ** (failures - 1));
}
