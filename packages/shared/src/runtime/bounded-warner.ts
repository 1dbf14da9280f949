/**
 * Logs an event that strangers can cause without limit: at most one line per `everyMs`, with the number of
 * events since the last line.
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
