import type { Histogram, Registry } from '@prometheus-io/client';

/** Upper bounds of the buckets, seconds. */
export const BOUNDS_S = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];

type Labels = 'listener' | 'route' | 'method' | 'status' | 'le';
type Series = Awaited<ReturnType<Histogram<Labels>['get']>>;

/** Requests of one listener, route, method and status. */
interface Cell {
  readonly labels: {
    readonly listener: string;
    readonly route: string;
    readonly method: string;
    readonly status: number;
  };
  /** Counts by the first bound that is not exceeded. The last one counts requests beyond all bounds. */
  readonly buckets: number[];
  sumS: number;
}

type ByRoute = Map<string, Map<string, Map<number, Cell>>>;

/** Answers that an alert counts. Their series exist before the first of them: an increase begins at 0. */
export interface AwaitedAnswers {
  readonly route: string;
  readonly method: string;
  readonly statuses: readonly number[];
}

/** Adds a request. The route is a pattern; routes, methods and statuses must be few. */
export type RequestRecorder = (route: string, method: string, status: number, seconds: number) => void;

/**
 * A histogram of request times. The library's own builds a string of the labels for each observation, which
 * costs a tenth of a request. This one finds its counts through three maps, and builds the series at a
 * scrape.
 */
export class RequestTimes {
  readonly name: string;
  readonly #listeners: ByRoute[] = [];

  constructor(name: string, registry: Registry) {
    this.name = name;
    // Only the types require a class of the library: the registry needs just the name and the series of a
    // metric.
    registry.registerMetric(this as unknown as Histogram);
  }

  /** The recorder of one listener. Call it once per listener. */
  recorderOf(listener: string, awaited: readonly AwaitedAnswers[] = []): RequestRecorder {
    const byRoute: ByRoute = new Map();
    this.#listeners.push(byRoute);
    for (const { route, method, statuses } of awaited)
      for (const status of statuses) cellOf(byRoute, listener, route, method, status);
    return (route, method, status, seconds) => {
      const cell = cellOf(byRoute, listener, route, method, status);
      let bucket = 0;
      while (bucket < BOUNDS_S.length && seconds > (BOUNDS_S[bucket] as number)) bucket++;
      cell.buckets[bucket] = (cell.buckets[bucket] as number) + 1;
      cell.sumS += seconds;
    };
  }

  async get(): Promise<Omit<Series, 'collect' | 'type'> & { type: string }> {
    const values = [...this.#cells()].flatMap((cell) => this.#seriesOf(cell));
    const help = 'Time from a request to its answer.';
    return { name: this.name, help, type: 'histogram', aggregator: 'sum', values };
  }

  *#cells(): Generator<Cell> {
    for (const byRoute of this.#listeners)
      for (const byMethod of byRoute.values())
        for (const byStatus of byMethod.values()) yield* byStatus.values();
  }

  /** Buckets are cumulative, as Prometheus requires. */
  #seriesOf({ labels, buckets, sumS }: Cell): Series['values'] {
    let count = 0;
    const series = [...BOUNDS_S, '+Inf'].map((le, at) => {
      count += buckets[at] as number;
      return { metricName: `${this.name}_bucket`, labels: { ...labels, le }, value: count };
    });
    return [
      ...series,
      { metricName: `${this.name}_sum`, labels, value: sumS },
      { metricName: `${this.name}_count`, labels, value: count },
    ];
  }
}

function cellOf(byRoute: ByRoute, listener: string, route: string, method: string, status: number): Cell {
  const byMethod = getOrMake(byRoute, route, () => new Map<string, Map<number, Cell>>());
  const byStatus = getOrMake(byMethod, method, () => new Map<number, Cell>());
  return getOrMake(byStatus, status, () => ({
    labels: { listener, route, method, status },
    buckets: Array.from({ length: BOUNDS_S.length + 1 }, () => 0),
    sumS: 0,
  }));
}

function getOrMake<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = make();
  map.set(key, made);
  return made;
}
