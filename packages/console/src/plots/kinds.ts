import { byLabel, type Kind, type Look, percentile, total } from './metrics.ts';

const perSecond =
  (...names: readonly string[]) =>
  (before: Look, after: Look) =>
    names.map(
      (name) =>
        (total(after.series, name) - total(before.series, name)) / ((after.atMs - before.atMs) / 1_000),
    );

/** Plots of the requests of a service and their durations. @param histogram name of the durations. */
export function requestKinds(histogram: string): readonly Kind[] {
  const latency = (share: number) => (before: Look, after: Look) => {
    const seconds = percentile(before.series, after.series, histogram, share);
    return seconds === undefined ? undefined : seconds * 1_000;
  };
  return [
    { title: 'Requests', unit: '/s', lines: ['all'], values: perSecond(`${histogram}_count`) },
    {
      title: 'Latency',
      unit: ' ms',
      lines: ['median', '99 %'],
      values: (before, after) => [latency(0.5)(before, after), latency(0.99)(before, after)],
    },
  ];
}

const OF_DOCUMENTS = /route="\/v1\/projects\/[^"]*\/(?:documents|batch|query|count|aggregate)[^"]*"/;
const READS = /method="(?:GET|HEAD)"|route="[^"]*\/(?:query|count|aggregate)"/;

/** A plot of the requests that open documents, and of those that seal them. */
export function readsAndWrites(histogram: string): Kind {
  const counted = `${histogram}_count{`;
  const sums = ({ series }: Look) => {
    let [reads, writes] = [0, 0];
    for (const [key, value] of series) {
      if (!key.startsWith(counted) || !OF_DOCUMENTS.test(key)) continue;
      if (READS.test(key)) reads += value;
      else writes += value;
    }
    return [reads, writes] as const;
  };
  return {
    title: 'Requests to documents',
    unit: '/s',
    lines: ['that open', 'that seal'],
    values: (before, after) => {
      const former = sums(before);
      return sums(after).map((sum, at) => (sum - (former[at] ?? 0)) / ((after.atMs - before.atMs) / 1_000));
    },
  };
}

/** A plot of how much of the fullest share is held. @param prefix of the metrics' names. */
export function fullestShare(prefix: string): Kind {
  return {
    title: 'Fullest share',
    unit: ' %',
    lines: ['held'],
    values: (_before, { series }) => {
      const capacities = byLabel(series, `${prefix}share_capacity`, 'share');
      const held = [...byLabel(series, `${prefix}share_held`, 'share')].map(
        ([share, units]) => units / (capacities.get(share) ?? Number.POSITIVE_INFINITY),
      );
      return [Math.max(0, ...held) * 100];
    },
  };
}

/** A plot of rates. */
export function rates(title: string, lines: readonly string[], names: readonly string[]): Kind {
  return { title, unit: '/s', lines, values: perSecond(...names) };
}

/** A plot of levels. */
export function levels(title: string, lines: readonly string[], names: readonly string[]): Kind {
  return {
    title,
    unit: '',
    lines,
    values: (_before, { series }) => names.map((name) => total(series, name)),
  };
}
