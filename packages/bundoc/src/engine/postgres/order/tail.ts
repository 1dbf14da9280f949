import { createRequire } from 'node:module';
import type { KeyRange } from '../../port/index-port.ts';
import { entriesOf, type Keys, type OrderEntry } from './entry.ts';

/** A CommonJS module whose default export bundlers and Node interpret differently. */
const { default: BTree } = createRequire(import.meta.url)('sorted-btree') as typeof import('sorted-btree');

/** A document's row, as a tail takes it. */
export interface TailRow {
  /** `documents.name` in hex. */
  readonly name: string;
  readonly createdSeq: number;
  readonly seq: number;
  /** Its keys in the index; undefined for a tombstone. */
  readonly keys: Keys | undefined;
}

/**
 * The entries of the documents of one index's collection that changed after the `asOf` of its manifest. The
 * caller applies all rows with a larger `seq`, tombstones too if there are any.
 */
export class Tail {
  /** The position that its rows follow. */
  readonly asOf: number;
  readonly #rows = new Map<string, TailRow>();
  /** By creation position of each changed document: entries of it before this `seq` are out of date. */
  readonly #latest = new Map<number, number>();
  readonly #tree = new BTree<string, OrderEntry>(undefined, (a, b) => (a < b ? -1 : Number(a > b)));
  #seenTo: number;
  #bytes = 0;
  #multiple = 0;

  constructor(asOf: number) {
    this.asOf = asOf;
    this.#seenTo = asOf;
  }

  /** All rows up to here are applied. */
  get seenTo(): number {
    return this.#seenTo;
  }

  /** Number of changed documents. A document that was deleted and created again counts twice. */
  get changes(): number {
    return this.#latest.size;
  }

  /** Total length of its places. Memory is about 300 bytes for each change and 100 for each entry more. */
  get bytes(): number {
    return this.#bytes;
  }

  get size(): number {
    return this.#tree.size;
  }

  /** Entries of documents that have several, or too many keys. */
  get multiple(): number {
    return this.#multiple;
  }

  /** Rows without changes up to a position: {@link seenTo} moves there. */
  sawTo(seq: number): void {
    this.#seenTo = Math.max(this.#seenTo, seq);
  }

  /**
   * Takes a row. It replaces the row of the same name, unless that has the same `seq` or a larger one.
   * {@link seenTo} moves to its `seq`, so rows come in the order of `seq`.
   */
  apply(row: TailRow): void {
    this.sawTo(row.seq);
    const former = this.#rows.get(row.name);
    if (former !== undefined) {
      if (former.seq >= row.seq) return;
      for (const entry of entriesOfRow(former)) this.#count(entry, -1);
      for (const { place } of entriesOfRow(former)) this.#tree.delete(place);
      // Its name may have come back as another document.
      this.#latest.set(former.createdSeq, row.seq);
    }
    this.#rows.set(row.name, row);
    this.#latest.set(row.createdSeq, row.seq);
    for (const entry of entriesOfRow(row)) {
      this.#tree.set(entry.place, entry);
      this.#count(entry, 1);
    }
  }

  /** Whether the document that was created there has changed after it had this `seq`. */
  isStale(createdSeq: number, seq: number): boolean {
    const latest = this.#latest.get(createdSeq);
    return latest !== undefined && latest > seq;
  }

  /** Where the row of a name was last changed; undefined if it has no row. */
  seqOf(name: string): number | undefined {
    return this.#rows.get(name)?.seq;
  }

  /** The entries of a range. No row may be applied during the iteration. */
  *iterate({ low, high }: KeyRange, isBackwards: boolean): Generator<OrderEntry, undefined> {
    if (!(low < high)) return;
    if (!isBackwards) {
      for (const [place, entry] of this.#tree.entries(low)) {
        if (place >= high) return;
        yield entry;
      }
      return;
    }
    for (const [place, entry] of this.#tree.entriesReversed(high)) {
      if (place < low) return;
      if (place < high) yield entry;
    }
  }

  /** All entries in order: a copy, which makes a run with {@link changed} of the same moment. */
  entries(): OrderEntry[] {
    return this.#tree.valuesArray();
  }

  /** Creation positions of all changed documents in order: a copy. */
  changed(): number[] {
    return [...this.#latest.keys()].sort((a, b) => a - b);
  }

  /** The rows that this one has after a position, for a manifest with a later `asOf`. */
  after(asOf: number): Tail {
    const tail = new Tail(asOf);
    for (const row of this.#rows.values()) if (row.seq > asOf) tail.apply(row);
    // Names that came back have positions beside those of their rows.
    for (const [createdSeq, seq] of this.#latest) if (seq > asOf) tail.#latest.set(createdSeq, seq);
    tail.sawTo(this.#seenTo);
    return tail;
  }

  #count({ place, isMultiple }: OrderEntry, sign: 1 | -1): void {
    this.#bytes += sign * place.length;
    if (isMultiple) this.#multiple += sign;
  }
}

function entriesOfRow({ createdSeq, seq, keys }: TailRow): readonly OrderEntry[] {
  return keys === undefined ? [] : entriesOf(createdSeq, seq, keys);
}
