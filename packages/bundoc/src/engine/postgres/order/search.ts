import type { KeyRange } from '../../port/index-port.ts';
import type { OrderEntry } from './entry.ts';
import type { Run } from './manifest.ts';
import { PAGE_BYTES, type Page } from './page.ts';
import { type EntryCursor, nearest, type PageSource, RunCursor } from './run-cursor.ts';
import type { Tail } from './tail.ts';

/** A search of one index. */
export interface OrderedQuery {
  /** Those of a manifest. */
  readonly runs: readonly Run[];
  /** With all rows after the manifest's `asOf`, and possibly earlier ones. */
  readonly tail: Tail;
  readonly range: KeyRange;
  readonly isBackwards: boolean;
  readonly source: PageSource;
  /** A place where an earlier search ended: only later places are found, or earlier ones backwards. */
  readonly after?: string | undefined;
}

/** What one step of a search finds. */
export type Found =
  | {
      /**
       * In order. An entry counts only if its document lives and has its `seq`; a place may have several
       * entries, of which at most one counts. Entries that the tail knows to be out of date are left out.
       */
      readonly entries: readonly OrderEntry[];
      /** Where the search continues; undefined at the end of the range. */
      readonly last: string | undefined;
    }
  /** Pages to be read, so that the source has them at the next call. */
  | { readonly missing: readonly number[] };

/** Share of a page that a search may need without asking for it in advance. */
const UNLIKELY_PAGES = 0.02;

/** The entries of a range in all runs and the tail. */
export class OrderedSearch {
  readonly #query: OrderedQuery;
  readonly #entries: number;
  /** The pages of the present step. So a cache that drops some does not keep the search from its end. */
  readonly #held = new Map<number, Page>();
  #rest: KeyRange;

  constructor(query: OrderedQuery) {
    this.#query = query;
    this.#rest = query.range;
    this.#entries = query.runs.reduce((sum, { entries }) => sum + entries, 0);
    if (query.after !== undefined) this.#continueAfter(query.after);
  }

  /**
   * Finds the next entries, or the pages that it needs for them. It may be called again in both cases. The
   * entries are of one state of the tail: that of the call.
   *
   * @param limit entries to look at. Those out of date count as well, so fewer may be found before the end. A
   * few more are found if the last place has several.
   * @throws OpenError if a page is not of the run.
   */
  next(limit: number): Found {
    const { isBackwards, tail } = this.#query;
    const cursors = this.#cursors(limit);
    const entries: OrderEntry[] = [];
    let last: string | undefined;
    for (let looked = 0; looked < limit; ) {
      const place = nearest(cursors, isBackwards);
      if (typeof place === 'object') {
        const missing = [...place].filter((id) => this.#page(id) === undefined);
        return { missing };
      }
      last = place;
      if (place === undefined) break;
      let seq = -1;
      for (const cursor of cursors) {
        const { head } = cursor;
        if (head?.place !== place) continue;
        cursor.next();
        looked++;
        // A tail with earlier rows than its manifest has some entries of the runs.
        if (head.seq === seq || tail.isStale(head.createdSeq, head.seq)) continue;
        seq = head.seq;
        entries.push(head);
      }
    }
    this.#held.clear();
    if (last !== undefined) this.#continueAfter(last);
    return { entries, last };
  }

  #cursors(limit: number): EntryCursor[] {
    const { runs, tail, isBackwards } = this.#query;
    const source = { get: (id: number) => this.#page(id) };
    const cursors: EntryCursor[] = runs.map((run) => {
      const pages = (limit * run.bytes) / PAGE_BYTES / this.#entries;
      return new RunCursor(run, this.#rest, isBackwards, source, Math.ceil(pages - UNLIKELY_PAGES));
    });
    return [...cursors, new TailCursor(tail.iterate(this.#rest, isBackwards))];
  }

  #page(id: number): Page | undefined {
    const held = this.#held.get(id);
    if (held !== undefined) return held;
    const page = this.#query.source.get(id);
    if (page !== undefined) this.#held.set(id, page);
    return page;
  }

  #continueAfter(place: string): void {
    const { low, high } = this.#rest;
    this.#rest = this.#query.isBackwards
      ? { low, high: place < high ? place : high }
      : { low: low > place ? low : `${place}\0`, high };
  }
}

/** The entries of the tail. */
class TailCursor implements EntryCursor {
  readonly #entries: Iterator<OrderEntry, undefined>;
  head: OrderEntry | undefined;

  constructor(entries: Iterator<OrderEntry, undefined>) {
    this.#entries = entries;
    this.next();
  }

  load(): boolean {
    return true;
  }

  next(): void {
    this.head = this.#entries.next().value;
  }
}
