/**
 * Tells of something that strangers can cause as often as they like: at most one line in `everyMs`, with the
 * number since the last.
 */
export function boundedWarner(
  warn: (what: string, count: number) => void,
  monotonicMs: () => number,
  everyMs = 10_000,
): (what: string) => void {
  let count = 0;
  let lastMs = Number.NEGATIVE_INFINITY;
  return (what) => {
    count++;
    if (monotonicMs() - lastMs < everyMs) return;
    warn(what, count);
    count = 0;
    lastMs = monotonicMs();
  };
}
