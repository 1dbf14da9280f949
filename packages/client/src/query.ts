import type { Document, JsonText } from './document.ts';

/** A condition, as `docs/query.md` has it: `{ stars: { $gte: 3 }, 'author.name': 'Ada' }`. */
export type Where = Readonly<Record<string, unknown>>;

export interface OrderBy {
  /** A path of names joined by dots. */
  readonly field: string;
  readonly direction?: 'asc' | 'desc' | undefined;
}

export interface Query {
  /** A `JsonText` is sent to the byte: for numbers that a double does not hold. */
  readonly where?: Where | JsonText | undefined;
  /** The order of creation when absent. */
  readonly orderBy?: readonly OrderBy[] | undefined;
  /** Documents of a page, 1 to 1,000; 100 by default. */
  readonly limit?: number | undefined;
  /** Paths of members joined by dots, 1 to 50: the only ones that are given, beside the metadata. */
  readonly fields?: readonly string[] | undefined;
}

/** One figure of an aggregation. Sums and averages are doubles. */
export type Figure =
  | { readonly op: 'count' }
  | { readonly op: 'sum' | 'avg' | 'min' | 'max'; readonly field: string };

export interface Aggregation<F extends Readonly<Record<string, Figure>>> {
  readonly where?: Where | JsonText | undefined;
  /** At most two fields. */
  readonly groupBy?: readonly string[] | undefined;
  readonly figures: F;
}

export interface Group<F extends Readonly<Record<string, Figure>>> {
  /** The values of the fields that were grouped by; one that the documents lack is absent. */
  readonly group: Readonly<Record<string, unknown>>;
  readonly figures: { readonly [name in keyof F]?: F[name] extends { op: 'count' } ? number : unknown };
}

/** How an answer was found. */
export interface Explanation {
  readonly index: string | null;
  readonly order: 'creation' | 'index' | 'sorted';
  readonly documents_scanned: number;
  readonly bytes_scanned: number;
  readonly documents_matched: number;
}

export interface QueryPage<T> {
  readonly documents: readonly Document<T>[];
  readonly unreadable: readonly string[];
  readonly nextCursor: string | undefined;
  /** When it was asked for. */
  readonly explain: Explanation | undefined;
}
