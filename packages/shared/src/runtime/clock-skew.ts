/** When an answer was asked for and when it came, by this machine's clock, and its `Date` header. */
export interface DatedAnswer {
  readonly date: string | undefined;
  readonly beforeMs: number;
  readonly afterMs: number;
}

/** `Date` has no fractions of a second. */
const DATE_TRUNCATED_MS = 1_000;

/**
 * The least difference between two clocks that explains an answer, milliseconds: positive if the service's
 * clock is ahead of this machine's, negative if it is behind, 0 if they may agree. An answer that took long
 * widens what agrees, so it is never taken for a difference.
 *
 * @returns undefined without a `Date` that can be read.
 */
export function skewMs({ date, beforeMs, afterMs }: DatedAnswer): number | undefined {
  const serviceMs = Date.parse(date ?? '');
  if (Number.isNaN(serviceMs)) return undefined;
  const aheadMs = serviceMs - afterMs;
  if (aheadMs > 0) return aheadMs;
  return Math.min(0, serviceMs + DATE_TRUNCATED_MS - beforeMs);
}
