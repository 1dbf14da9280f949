/** The series of a scrape in Prometheus's text format: values by name and labels. */
export type Series = ReadonlyMap<string, number>;

/** One scrape. */
export interface Look {
  readonly atMs: number;
  readonly series: Series;
}

/** A kind of plot: its title, and how to compute it from two scrapes of the metrics. */
export interface Kind {
  readonly title: string;
  readonly unit: string;
  readonly lines: readonly string[];
  readonly values: (before: Look, after: Look) => readonly (number | undefined)[];
}

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

/** The values of a metric by one of its labels. */
export function byLabel(series: Series, name: string, label: string): ReadonlyMap<string, number> {
  const values = new Map<string, number>();
  for (const [key, value] of series) {
    const of = key.startsWith(`${name}{`) ? new RegExp(`[{,]${label}="([^"]*)"`).exec(key)?.[1] : undefined;
    if (of !== undefined) values.set(of, (values.get(of) ?? 0) + value);
  }
  return values;
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
