// Reads the metrics of a service from /metrics.

/** @param {string} token with `docs:metrics` or `kms:metrics` */
export async function readMetrics(url, token) {
  const answer = await fetch(`${url}/metrics`, { headers: { authorization: `Bearer ${token}` } });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`GET /metrics: ${answer.status} ${text}`);
  return {
    /** The value of a metric without labels; undefined when there is no such metric. */
    valueOf(name) {
      const found = new RegExp(`^${name} (\\S+)$`, 'm').exec(text);
      return found === null ? undefined : Number(found[1]);
    },
    /** The sum of a metric over all series whose labels contain a text, such as `status="503"`. */
    sumOf(name, label = '') {
      return seriesOf(text, name)
        .filter(([labels]) => labels.includes(label))
        .reduce((sum, [, value]) => sum + value, 0);
    },
    /** Requests answered so far, by status. */
    statuses() {
      const counts = new Map();
      for (const [labels, value] of seriesOf(text, '\\w+_http_request_duration_seconds_count')) {
        const status = /status="(\d+)"/.exec(labels)?.[1] ?? 'unknown';
        counts.set(status, (counts.get(status) ?? 0) + value);
      }
      return counts;
    },
  };
}

/** Requests that failed between two readings, such as `3 × 503`; empty when there were none. */
export function failuresBetween(before, after) {
  const earlier = before.statuses();
  return Array.from(after.statuses(), ([status, count]) => [status, count - (earlier.get(status) ?? 0)])
    .filter(([status, count]) => Number(status) >= 400 && count > 0)
    .map(([status, count]) => `${count} × ${status}`)
    .join(', ');
}

function seriesOf(text, name) {
  return Array.from(
    text.matchAll(new RegExp(`^${name}(?:\\{(.*)\\})? (\\S+)$`, 'gm')),
    ([, labels, value]) => [labels ?? '', Number(value)],
  );
}
