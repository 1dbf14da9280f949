import type { Document, JsonText } from './document.ts';

/**
 * A condition (`docs/query.md`): `{ stars: { $gte: 3 }, 'author.name': 'Ada' }`, or without regard to case `{
 * title: { $contains: 'hello', $options: 'i' } }`.
 */
export type Where = Readonly<Record<string, unknown>>;

export interface OrderBy {
  /** A path of members joined by dots. */
  readonly field: string;
  readonly direction?: 'asc' | 'desc' | undefined;
}

export interface Query {
  /** A `JsonText` is sent unchanged, for numbers that a double cannot represent. */
  readonly where?: Where | JsonText | undefined;
  /** By default in order of creation. */
  readonly orderBy?: readonly OrderBy[] | undefined;
  /** Paths of members joined by dots, 1 to 50. Only these and the metadata are returned. */
  readonly fields?: readonly string[] | undefined;
  /** Documents per page, 1 to 1,000; 100 by default. */
  readonly pageSize?: number | undefined;
  /** `asOf` of an earlier answer, to show the same state; BundocError `snapshot_too_old` once it is gone. */
  readonly asOf?: number | undefined;
}

/**
 * One figure of an aggregation. All are exact: see {@link Group.text}. `distinct` is the list of different
 * values in order, `percentile` the value at the nearest rank: `percent: 50` is the median.
 */
export type Figure =
  | { readonly op: 'count' }
  | {
      readonly op: 'sum' | 'avg' | 'min' | 'max' | 'distinct' | 'countDistinct';
      readonly field: string;
    }
  | { readonly op: 'percentile'; readonly field: string; readonly percent: number };

type FigureValue<F extends Figure> = F extends { op: 'count' | 'countDistinct' }
  ? number
  : F extends { op: 'distinct' }
    ? readonly unknown[]
    : unknown;

export interface Aggregation<F extends Readonly<Record<string, Figure>>> {
  readonly where?: Where | JsonText | undefined;
  /** At most two fields. */
  readonly groupBy?: readonly string[] | undefined;
  readonly figures: F;
  /**
   * What holds for the figures of a group in the answer: `{ total: { $gte: 100 } }`. A `JsonText` is sent
   * unchanged.
   */
  readonly having?: Where | JsonText | undefined;
}

/** The figures of one group. `JSON.parse` rounds numbers that a double cannot represent: see `text`. */
export interface Group<F extends Readonly<Record<string, Figure>>> {
  /** The values of the grouping fields. A field that the documents lack is absent. */
  readonly group: Readonly<Record<string, unknown>>;
  readonly figures: { readonly [name in keyof F]?: FigureValue<F[name]> };
  /** The group as exact JSON text, with the members `group` and `figures`. */
  readonly text: string;
}

/** How the service found an answer. */
export interface Explanation {
  readonly index: string | null;
  readonly order: 'creation' | 'index' | 'sorted';
  readonly documents_scanned: number;
  readonly bytes_scanned: number;
  readonly documents_matched: number;
}

/** What several pages took together: the work is summed, and the rest is that of the last page. */
export function sumOfExplanations(before: Explanation | undefined, last: Explanation): Explanation {
  if (before === undefined) return last;
  return {
    ...last,
    documents_scanned: before.documents_scanned + last.documents_scanned,
    bytes_scanned: before.bytes_scanned + last.bytes_scanned,
    documents_matched: before.documents_matched + last.documents_matched,
  };
}

export interface QueryPage<T> {
  readonly documents: readonly Document<T>[];
  readonly unreadable: readonly string[];
  readonly nextCursor: string | undefined;
  /** The position of the last commit that the page shows. A later page with it shows the same state. */
  readonly asOf: number | undefined;
  /** If it was requested. */
  readonly explain: Explanation | undefined;
}
