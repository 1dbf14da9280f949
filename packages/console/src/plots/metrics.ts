/** The series of a scrape in Prometheus's text format: values by name and labels. */
export type Series = ReadonlyMap<string, number>;

const LINE = /^([a-zA-Z_:][\w:]*(?:\{[^}]*\})?) (\S+)/;

export function readMetrics(text: string): Series {
  const series = new Map<string, number>();
  for (const line of text.split('\n')) {
    const match = LINE.exec(line);
    if (match?.[1] !== undefined) series.set(match[1], Number(match[2]));
  }
  return series;
}

/** The sum of all series with a name, for any labels. */
export function total(series: Series, name: string): number {
  let sum = 0;
  for (const [key, value] of series) if (key === name || key.startsWith(`${name}{`)) sum += value;
  return sum;
}

/** The counts of a histogram between two scrapes, by the upper bounds of its buckets, in order. */
function bucketsBetween(before: Series, after: Series, name: string): readonly (readonly [number, number])[] {
  const counts = new Map<number, number>();
  for (const [key, value] of after) {
    if (!key.startsWith(`${name}_bucket{`)) continue;
    const bound = /le="([^"]+)"/.exec(key)?.[1];
    if (bound === undefined) continue;
    const le = bound === '+Inf' ? Number.POSITIVE_INFINITY : Number(bound);
    counts.set(le, (counts.get(le) ?? 0) + value - (before.get(key) ?? 0));
  }
  return [...counts].sort(([one], [other]) => one - other);
}

/** A percentile of the values between two scrapes, as an upper bound; undefined without values. */
export function percentile(before: Series, after: Series, name: string, share: number): number | undefined {
  const buckets = bucketsBetween(before, after, name);
  const all = buckets.at(-1)?.[1] ?? 0;
  if (all <= 0) return undefined;
  const bound = buckets.find(([, count]) => count >= all * share)?.[0];
  return bound === undefined || !Number.isFinite(bound) ? buckets.at(-2)?.[0] : bound;
}
