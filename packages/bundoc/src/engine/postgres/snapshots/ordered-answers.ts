import type { Clock } from '@bundoc/shared/runtime/clock';
import { type IndexRef, isRefTo, type UsableIndex } from '../../port/index-port.ts';
import { type IndexPage, type IndexSearch, StateMoved } from '../../port/snapshot-port.ts';
import type { Queryable } from '../database/database.ts';
import { retryUnavailable } from '../database/retry-unavailable.ts';
import { aliveOf } from '../indexes/alive-entries.ts';
import type { IndexRow } from '../indexes/index-rows.ts';
import type { OrderedIndexes } from '../indexes/ordered-indexes.ts';
import { readOrdered } from '../indexes/ordered-rows.ts';
import {
  OrderedIndexGone,
  OrderedLookup,
  type ShownDocuments,
  Unsettled,
} from '../indexes/ordered-search.ts';
import { type OrderedState, RunsDamaged } from '../indexes/ordered-state.ts';
import type { RowReader } from '../reads/row-reader.ts';
import type { RowCipher } from '../rows/row-cipher.ts';

export interface OrderedAnswersPorts {
  readonly project: string;
  readonly database: Queryable;
  readonly clock: Clock;
  readonly reader: RowReader;
  readonly ordered: OrderedIndexes;
  readonly rows: RowCipher;
}

/** A page, with the state that it shows. */
export type ShownPage = IndexPage & Pick<ShownDocuments, 'asOf' | 'total'>;

/**
 * One answer by ordered indexes. Errors of every method: StateMoved when the answer must begin again, because
 * an index is not as it was described, is gone or damaged; VersionUnknown, ProjectGone, and those of the
 * database.
 */
export class OrderedAnswers {
  readonly #ports: OrderedAnswersPorts;
  readonly #indexes: readonly IndexRow[];
  /** Lookups of the transaction, by index. */
  readonly #lookups = new Map<number, OrderedLookup>();
  /** Indexes that turned out to have several entries of a document. */
  readonly #multiple = new Set<number>();
  #needsTransaction = false;

  /** @param indexes that were ready before the answer. */
  constructor(ports: OrderedAnswersPorts, indexes: readonly IndexRow[]) {
    this.#ports = ports;
    this.#indexes = indexes;
  }

  /** Its documents change faster than separate statements can read them. */
  get needsTransaction(): boolean {
    return this.#needsTransaction;
  }

  has(index: IndexRef): boolean {
    return this.#find(index) !== undefined;
  }

  usable(): readonly UsableIndex[] {
    const { ordered } = this.#ports;
    return this.#indexes
      .filter((index) => ordered.isUsable(index))
      .map((index) => {
        const usable = ordered.describe(index);
        return this.#multiple.has(index.id) ? { ...usable, isMultiple: true } : usable;
      });
  }

  /** @param held a transaction that shows one state; by default, each statement shows the present one. */
  async find(query: IndexSearch, held?: Queryable): Promise<ShownPage> {
    const index = this.#find(query.index) as IndexRow;
    const lookup = held === undefined ? this.#presentLookup(index) : this.#lookupIn(held, index);
    const found = await this.#using(index, lookup, () => lookup.find(query));
    if (held === undefined) this.#ports.ordered.used(index);
    return pageOf(found);
  }

  /** Counts entries, each of which the transaction is asked for. */
  async count(query: Pick<IndexSearch, 'index' | 'ranges'>, held: Queryable): Promise<number> {
    const index = this.#find(query.index) as IndexRow;
    const lookup = this.#lookupIn(held, index);
    const { project, rows } = this.#ports;
    const collection = rows.collectionToken(index.collection);
    return await this.#using(index, lookup, async () => {
      let count = 0;
      for await (const entries of lookup.entries(query.ranges, query.index.isMultiple))
        count += (await aliveOf(held, project, collection, entries)).length;
      return count;
    });
  }

  #find(wanted: IndexRef): IndexRow | undefined {
    return this.#indexes.find(({ spec }) => isRefTo(spec, wanted));
  }

  async #using<T>(index: IndexRow, lookup: OrderedLookup, use: () => Promise<T>): Promise<T> {
    try {
      return await use();
    } catch (error) {
      if (error instanceof StateMoved) this.#multiple.add(index.id);
      if (error instanceof Unsettled) this.#needsTransaction = true;
      // Or the project is gone.
      if (error instanceof OrderedIndexGone) await this.#ports.reader.position();
      if (error instanceof RunsDamaged || error instanceof OrderedIndexGone)
        this.#ports.ordered.isDamaged(index, lookup.version);
      else if (!(error instanceof Unsettled)) throw error;
      throw new StateMoved();
    }
  }

  #presentLookup(index: IndexRow): OrderedLookup {
    const { ordered, database, clock } = this.#ports;
    const present: Queryable = { query: (...of) => retryUnavailable(clock, () => database.query(...of)) };
    return this.#lookup(ordered.stateOf(index), present, false);
  }

  /** All searches of a transaction share what they have read. */
  #lookupIn(held: Queryable, index: IndexRow): OrderedLookup {
    const known = this.#lookups.get(index.id);
    if (known !== undefined) return known;
    const lookup = this.#lookup(this.#ports.ordered.newState(index), held, true);
    this.#lookups.set(index.id, lookup);
    return lookup;
  }

  #lookup(state: OrderedState, queryable: Queryable, isFixed: boolean): OrderedLookup {
    const { project, rows, ordered, reader } = this.#ports;
    const { id, collection } = state.index;
    const place = { project, id, collection: rows.collectionToken(collection) };
    return new OrderedLookup({
      state,
      isFixed,
      pages: ordered.pages,
      read: (known, wanted) => readOrdered(queryable, place, known, wanted),
      open: (row, seq) => reader.openRow(row, seq),
    });
  }
}

function pageOf({ documents, unreadable, outOfDate, last, asOf, total }: ShownDocuments): ShownPage {
  const entries = documents.map(({ place, document }) => ({
    key: place,
    id: document.metadata._id,
    document,
  }));
  return { entries, unreadable, outOfDate, last, asOf, total };
}
