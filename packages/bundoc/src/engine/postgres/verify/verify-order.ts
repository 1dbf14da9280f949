import type { Finding } from '../../port/reports.ts';
import type { Queryable } from '../database/database.ts';
import { aliveOf } from '../indexes/alive-entries.ts';
import { type IndexRow, type IndexRows, toEntries } from '../indexes/index-rows.ts';
import { readOrdered } from '../indexes/ordered-rows.ts';
import { OrderedIndexGone, OrderedLookup } from '../indexes/ordered-search.ts';
import { OrderedState, RunsDamaged } from '../indexes/ordered-state.ts';
import { entriesOf, type OrderEntry } from '../order/entry.ts';
import type { Page } from '../order/page.ts';
import type { RowCipher } from '../rows/row-cipher.ts';
import type { CheckedDocument } from './verify-entries.ts';

/** Before and behind all places. */
const ALL = { low: '', high: '\u0100' };
const FNV_PRIME = 0x01000193;
const FNV_BASES = [0x811c9dc5, 0x2f0b4a27] as const;

/** Compares the order of whole indexes with the values of documents. Everything must be in one snapshot. */
export class OrderCheck {
  readonly #queryable: Queryable;
  readonly #project: string;
  readonly #rows: RowCipher;
  readonly #byCollection = new Map<string, readonly (readonly [IndexRow, EntrySum])[]>();

  constructor(queryable: Queryable, project: string, rows: RowCipher, { byCollection }: IndexRows) {
    this.#queryable = queryable;
    this.#project = project;
    this.#rows = rows;
    for (const [collection, indexes] of byCollection) {
      // Runs under a version of the key that is gone are built again.
      const whole = indexes.filter(
        ({ runsIndexed, runsKeyVersion }) =>
          runsIndexed === undefined && runsKeyVersion !== undefined && rows.hasVersion(runsKeyVersion),
      );
      this.#byCollection.set(
        collection,
        whole.map((index) => [index, new EntrySum()]),
      );
    }
  }

  /** Takes the intact documents. */
  take(documents: readonly CheckedDocument[]): void {
    for (const { state, text } of documents) {
      const indexes = this.#byCollection.get(state.collection) ?? [];
      if (text === undefined || indexes.length === 0) continue;
      const made = toEntries(
        indexes.map(([index]) => index),
        text,
        this.#rows,
      );
      for (const [at, [, sum]] of indexes.entries()) {
        const { keys, tooMany } = made[at]?.keys ?? { keys: [], tooMany: true };
        sum.add(entriesOf(state.createdSeq, state.seq, tooMany ? 'too many' : keys));
      }
    }
  }

  /** Findings after all documents were taken. */
  async end(): Promise<Finding[]> {
    const findings: Finding[] = [];
    for (const [index, expected] of [...this.#byCollection.values()].flat()) {
      const problem = await this.#problemOf(index, expected);
      if (problem !== undefined) findings.push({ part: `index ${index.id}`, problem });
    }
    return findings;
  }

  async #problemOf(index: IndexRow, expected: EntrySum): Promise<string | undefined> {
    const collection = this.#rows.collectionToken(index.collection);
    const place = { project: this.#project, id: index.id, collection };
    const pages = new Map<number, Page>();
    const lookup = new OrderedLookup({
      state: new OrderedState(index, this.#rows),
      pages,
      isFixed: true,
      read: (known, wanted) => {
        // A search holds the pages that it needs next.
        pages.clear();
        return readOrdered(this.#queryable, place, known, wanted);
      },
      open: () => {
        throw new Error('no document is asked for');
      },
    });
    const found = new EntrySum();
    try {
      for await (const entries of lookup.entries([ALL]))
        found.add(await aliveOf(this.#queryable, this.#project, collection, entries));
    } catch (error) {
      if (error instanceof RunsDamaged || error instanceof OrderedIndexGone) return 'its runs do not open';
      throw error;
    }
    return found.isSame(expected) ? undefined : 'its entries are not those of the documents’ values';
  }
}

/** Number of some entries, and a sum of their hashes (FNV-1a): equal for equal entries in any order. */
class EntrySum {
  #count = 0;
  readonly #sums: [number, number] = [0, 0];

  add(entries: Iterable<OrderEntry>): void {
    for (const { place, seq } of entries) {
      this.#count++;
      for (const [at, base] of FNV_BASES.entries()) {
        let hash = base ^ seq;
        for (let unit = 0; unit < place.length; unit++)
          hash = Math.imul(hash ^ place.charCodeAt(unit), FNV_PRIME);
        this.#sums[at as 0 | 1] = ((this.#sums[at as 0 | 1] ?? 0) + hash) | 0;
      }
    }
  }

  isSame(other: EntrySum): boolean {
    return this.#count === other.#count && this.#sums.every((sum, at) => sum === other.#sums[at]);
  }
}
