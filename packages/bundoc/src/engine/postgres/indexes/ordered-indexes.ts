import { LRUCache } from 'lru-cache';
import type { UsableIndex } from '../../port/index-port.ts';
import { PAGE_BYTES, type Page } from '../order/page.ts';
import type { RowCipher } from '../rows/row-cipher.ts';
import type { IndexRow } from './index-rows.ts';
import { OrderedState } from './ordered-state.ts';
import { ORDER_SIZES, type OrderSizes, type RunsWorker } from './runs-worker.ts';

/** Decoded pages that a project keeps. */
const PAGES_MAX = 4_096;

/** What works on long tails and damaged runs. */
type OrderedWorker = Pick<RunsWorker, 'isDue' | 'isDamaged'>;

/** What a node knows of the ordered indexes of a project: their tails, and pages of their runs. */
export class OrderedIndexes {
  readonly #rows: RowCipher;
  readonly #worker: OrderedWorker;
  readonly #sizes: OrderSizes;
  readonly #states = new Map<number, OrderedState>();
  /** Indexes whose runs did not open, and their version. */
  readonly #damaged = new Map<number, number>();
  /** Pages never change, and their ids are never used again. Made when the first is read. */
  #pages: LRUCache<number, Page> | undefined;

  constructor(rows: RowCipher, worker: OrderedWorker, sizes: OrderSizes = ORDER_SIZES) {
    this.#rows = rows;
    this.#sizes = sizes;
    this.#worker = worker;
  }

  /** Estimated memory. */
  get bytes(): number {
    let bytes = (this.#pages?.size ?? 0) * PAGE_BYTES;
    for (const state of this.#states.values()) bytes += state.bytes;
    return bytes;
  }

  get pages() {
    return {
      get: (id: number) => this.#pages?.get(id),
      set: (id: number, page: Page) => {
        this.#pages ??= new LRUCache({ max: PAGES_MAX });
        this.#pages.set(id, page);
      },
    };
  }

  /** The state that all answers share. */
  stateOf(index: IndexRow): OrderedState {
    const known = this.#states.get(index.id);
    if (known !== undefined) return known;
    const state = this.newState(index);
    this.#states.set(index.id, state);
    return state;
  }

  /** A state of its own, for the answers of one transaction. */
  newState(index: IndexRow): OrderedState {
    return new OrderedState(index, this.#rows);
  }

  /** After an answer: long tails become runs, and so do those that begin long ago. */
  used(index: IndexRow): void {
    const { tail } = this.stateOf(index);
    const { tailChanges, tailBytes, commitsUnseenMax } = this.#sizes;
    const isLong = tail.changes >= tailChanges || tail.bytes >= tailBytes;
    if (isLong || tail.seenTo - tail.asOf >= commitsUnseenMax) this.#worker.isDue(index.id);
  }

  /** The runs of an index do not open: nobody uses it until they are built again. */
  isDamaged({ id }: IndexRow, version: number): void {
    this.#states.delete(id);
    this.#damaged.set(id, version);
    this.#worker.isDamaged(id, version);
  }

  /** Forgets what is known of indexes that are gone, and of those that were built again. */
  retain(indexes: readonly IndexRow[]): void {
    const versions = new Map(indexes.map(({ id, runsVersion }) => [id, runsVersion]));
    // An older row may have been put back: then other nodes do not know the runs that this one does.
    for (const [id, { known }] of this.#states)
      if (known.version > (versions.get(id) ?? Number.NEGATIVE_INFINITY)) this.#states.delete(id);
    for (const [id, version] of this.#damaged)
      if ((versions.get(id) ?? Number.POSITIVE_INFINITY) > version) this.#damaged.delete(id);
  }

  isUsable({ id, runsIndexed }: IndexRow): boolean {
    return runsIndexed === undefined && !this.#damaged.has(id);
  }

  describe(index: IndexRow): UsableIndex {
    const { name, fields } = index.spec;
    return { name, fields, isMultiple: this.#states.get(index.id)?.isMultiple ?? false };
  }
}
