import { OpenError } from '@bundoc/shared/crypto/aead';
import type { KeyRange } from '../../port/index-port.ts';
import type { Position, StoredDocument } from '../../port/port.ts';
import { type IndexSearch, StateMoved } from '../../port/snapshot-port.ts';
import type { Row } from '../database/database.ts';
import type { OrderEntry } from '../order/entry.ts';
import { Page } from '../order/page.ts';
import type { PageSource } from '../order/run-cursor.ts';
import { OrderedSearch } from '../order/search.ts';
import type { OpenedRow } from '../rows/opened-row.ts';
import type { KnownOrder, OrderedRows, WantedRows } from './ordered-rows.ts';
import { type OrderedState, RunsDamaged } from './ordered-state.ts';
import type { StoredPage } from './run-rows.ts';

/** Reads one state of an index. Undefined when it is gone, or is built again. */
export type ReadOrdered = (known: KnownOrder, wanted: WantedRows) => Promise<OrderedRows | undefined>;

/** Pages of an index that were read and decoded. */
export interface PageStore extends PageSource {
  set(id: number, page: Page): void;
}

export interface OrderedSearchPorts {
  readonly state: OrderedState;
  readonly pages: PageStore;
  readonly read: ReadOrdered;
  readonly open: (row: Row, seq: Position) => OpenedRow;
  /** Whether all reads show one state. Otherwise each shows the present one. */
  readonly isFixed: boolean;
}

export interface FoundDocuments {
  /** In the order of the search. */
  readonly documents: readonly { readonly place: string; readonly document: StoredDocument }[];
  /** Ids of documents that do not open, as far as the ids do. */
  readonly unreadable: readonly string[];
  /** Entries whose documents have changed since. */
  readonly outOfDate: number;
  /** The place behind which the search continues; undefined at the end of the range. */
  readonly last: string | undefined;
}

/** Documents of one state: the last commit that it shows, and the number of documents in the collection. */
export interface ShownDocuments extends FoundDocuments {
  readonly asOf: Position;
  readonly total: number;
}

/** Entries that one step looks at, at most. */
const LOOKED_AT_ONCE = 2_000;
const ENTRIES_AT_ONCE = 5_000;
/** Pages that one statement reads, unless a search needs more for its next entry. */
const PAGES_AT_ONCE = 64;
/** Pages after which an answer is complete as far as it goes. */
const PAGES_OF_ANSWER = 512;
/** Statements without missing pages, after which an answer needs a transaction. */
const READS_MAX = 16;
const NOTHING: WantedRows = { documents: [], pages: [], bytesMax: 0 };

/** The index was removed, or is built again. */
export class OrderedIndexGone extends Error {
  override readonly name = 'OrderedIndexGone';
}

/** The documents of an answer change faster than it is read. One transaction can read it. */
export class Unsettled extends Error {
  override readonly name = 'Unsettled';
}

/**
 * Finds documents by an index, as of the commit that the state shows afterwards. Each statement reads the
 * latest changes with documents and pages, in one snapshot. A row at a place is read again if its document
 * has changed since: the change is in the tail, at this place or, if its id was used again, at another.
 */
export class OrderedLookup {
  readonly #ports: OrderedSearchPorts;
  /** Rows at places that were read, and the commit as of which they were. */
  readonly #rows = new Map<Position, { readonly row: OpenedRow | undefined; readonly asOf: Position }>();
  /** Pages that the present answer has read. A cache that drops some does not keep it from its end. */
  readonly #held = new Map<number, Page>();
  /** Places of wanted documents, and their `seq` by the latest entry. */
  readonly #unread = new Map<Position, Position>();
  #isFresh = false;

  constructor(ports: OrderedSearchPorts) {
    this.#ports = ports;
  }

  /** The runs that it knows. */
  get version(): number {
    return this.#ports.state.known.version;
  }

  /**
   * Finds entries and their documents.
   *
   * @throws StateMoved when documents may have several entries, and the search was planned for one of each;
   * Unsettled when its documents change faster than they are read; OrderedIndexGone, RunsDamaged,
   * VersionUnknown, those of reading.
   */
  async find(query: IndexSearch): Promise<ShownDocuments> {
    const { state, isFixed } = this.#ports;
    this.#isFresh &&= isFixed;
    for (let reads = 0; ; ) {
      if (this.#isFresh && state.isMultiple && !query.index.isMultiple) throw new StateMoved();
      const found = state.manifest && this.#look(query);
      if (found !== undefined && 'last' in found && this.#isFresh && state.isWhole) {
        this.#rows.clear();
        this.#held.clear();
        return { ...found, asOf: state.asOf, total: state.total };
      }
      const wanted = found === undefined || 'last' in found ? NOTHING : { ...NOTHING, ...found };
      if (wanted.pages.length === 0 && ++reads > READS_MAX && !isFixed) throw new Unsettled();
      await this.#read(wanted);
    }
  }

  /**
   * All entries of some ranges, in chunks, without those that the tail knows to be out of date. All reads
   * must show one state.
   *
   * @param mayBeMultiple false if documents must have one entry each.
   * @throws StateMoved, OrderedIndexGone, RunsDamaged, VersionUnknown, those of reading.
   */
  async *entries(
    ranges: readonly KeyRange[],
    mayBeMultiple = true,
  ): AsyncGenerator<readonly OrderEntry[], undefined> {
    while (!this.#isFresh) await this.#read(NOTHING);
    if (this.#ports.state.isMultiple && !mayBeMultiple) throw new StateMoved();
    for (const range of ranges) {
      const search = this.#search(range, false);
      for (let isOver = false; !isOver; ) {
        const found = search.next(ENTRIES_AT_ONCE);
        if ('missing' in found) {
          this.#held.clear();
          await this.#read({ ...NOTHING, pages: found.missing });
          continue;
        }
        yield found.entries;
        isOver = found.last === undefined;
      }
    }
  }

  /** What the rows at hand give, or what is still to be read. */
  #look({ ranges, backwards, limit, bytesMax }: IndexSearch): FoundDocuments | Partial<WantedRows> {
    const taken = new Taken();
    this.#unread.clear();
    const unread = this.#unread;
    const missing = new Set<number>();
    const wanted = () => ({
      documents: inNumericOrder(unread.keys()),
      pages: inNumericOrder(missing),
      bytesMax: Math.max(0, bytesMax - taken.bytes),
    });
    // Some may be out of date.
    const enough = limit + Math.ceil(limit * this.#ports.state.staleShare);
    let looked = 0;
    let askedBytes = 0;
    for (const range of backwards ? ranges.toReversed() : ranges) {
      const search = this.#search(range, backwards);
      for (let many = enough; ; many = Math.min(2 * many, LOOKED_AT_ONCE)) {
        const found = search.next(many);
        if ('missing' in found) {
          for (const id of found.missing) missing.add(id);
          break;
        }
        for (const entry of missing.size > 0 ? [] : found.entries) {
          const row = this.#rowOf(entry);
          if (row === 'unread' && taken.bytes >= bytesMax) return taken.upTo(taken.placeBefore(entry));
          if (row === 'unread') {
            // Rows come in another order. So those that a statement has left out come before further
            // ones, and as many as one can read.
            const size = this.#rows.get(entry.createdSeq)?.row?.size;
            const isTooMuch = taken.bytes + askedBytes + (size ?? bytesMax) > bytesMax;
            if (unread.size > 0 && askedBytes > 0 && isTooMuch) return wanted();
            askedBytes += unread.has(entry.createdSeq) ? 0 : (size ?? 0);
            unread.set(entry.createdSeq, entry.seq);
          } else if (unread.size === 0) taken.add(entry, row);
          if (unread.size === 0 && taken.documents.length === limit) return taken.upTo(entry.place);
          if (taken.documents.length + unread.size >= enough) return wanted();
        }
        if (missing.size > 0) break;
        looked += found.entries.length;
        const isLong = looked >= LOOKED_AT_ONCE || this.#held.size >= PAGES_OF_ANSWER;
        // The next answer continues, so that none looks at the same entries again and again.
        if (isLong && unread.size === 0)
          return taken.upTo(found.last ?? (backwards ? range.low : range.high));
        if (found.last === undefined) break;
      }
      if (missing.size >= PAGES_AT_ONCE) break;
    }
    return unread.size + missing.size > 0 ? wanted() : taken.upTo(undefined);
  }

  /** The row that makes an entry count; undefined if none does. */
  #rowOf({ createdSeq, seq }: OrderEntry): OpenedRow | 'unread' | undefined {
    const known = this.#rows.get(createdSeq);
    if (known === undefined) return 'unread';
    const { row, asOf } = known;
    const { tail } = this.#ports.state;
    // The changes after a row was read must be in the tail. Its name may have come back at another place.
    const isCurrent = asOf >= seq && asOf >= tail.asOf && (tail.seqOf(row?.name ?? '') ?? 0) <= asOf;
    if (!isCurrent || row?.document === 'unread') return 'unread';
    return row === undefined || (row.seq !== undefined && row.seq !== seq) ? undefined : row;
  }

  #search(range: KeyRange, isBackwards: boolean): OrderedSearch {
    const { state, pages } = this.#ports;
    const source = { get: (id: number) => this.#held.get(id) ?? pages.get(id) };
    const { runs } = state.manifest as NonNullable<typeof state.manifest>;
    return new OrderedSearch({ runs, tail: state.tail, range, isBackwards, source });
  }

  async #read(wanted: WantedRows): Promise<void> {
    const { state, read, open } = this.#ports;
    const { version } = state.known;
    const rows = await read(state.known, wanted);
    if (rows === undefined) throw new OrderedIndexGone();
    state.learn(rows);
    // The first statement gives the runs, unless their version is one that no runs have.
    if (state.manifest === undefined) throw new RunsDamaged();
    this.#isFresh = state.isWhole;
    this.#keepPages(rows.pages);
    // Runs that were replaced meanwhile may lack pages by now, and the new ones are known.
    if (!wanted.pages.every((id) => this.#held.has(id) || this.#wasReplaced(version)))
      throw new RunsDamaged();
    const opened = new Map(rows.documents.map((row) => [row[3] as number, open(row, rows.seq)]));
    for (const createdSeq of wanted.documents)
      this.#rows.set(createdSeq, { row: opened.get(createdSeq), asOf: rows.seq });
    const stale = wanted.documents.filter((at) => opened.get(at)?.seq !== this.#unread.get(at)).length;
    state.foundStale(wanted.documents.length, stale);
  }

  #keepPages(found: readonly StoredPage[]): void {
    const { state, pages } = this.#ports;
    for (const { id, run, sealed } of found) {
      try {
        if (sealed === null) continue;
        const page = new Page(state.cipherOf(run).open(id, sealed));
        this.#held.set(id, page);
        pages.set(id, page);
      } catch (error) {
        // It may be of a run that was replaced meanwhile. Otherwise it is missing.
        if (!(error instanceof OpenError || error instanceof RunsDamaged)) throw error;
      }
    }
  }

  #wasReplaced(version: number): boolean {
    return this.#ports.state.known.version !== version;
  }
}

/** A statement shows no order of values. */
function inNumericOrder(numbers: Iterable<number>): number[] {
  return [...numbers].sort((a, b) => a - b);
}

/** The documents of an answer so far. */
class Taken {
  readonly documents: { readonly place: string; readonly document: StoredDocument }[] = [];
  readonly #unreadable = new Set<string>();
  bytes = 0;
  #outOfDate = 0;
  /** The places of the last two entries that were looked at; one place may have several. */
  #last: string | undefined;
  #before: string | undefined;

  /** The last place before that of an entry. */
  placeBefore({ place }: OrderEntry): string | undefined {
    return this.#last === place ? this.#before : this.#last;
  }

  add({ place }: OrderEntry, row: OpenedRow | undefined): void {
    if (this.#last !== place) this.#before = this.#last;
    this.#last = place;
    if (row?.document === 'unread') return;
    if (row === undefined) this.#outOfDate++;
    else if (row.document !== undefined) {
      this.documents.push({ place, document: row.document });
      this.bytes += row.document.text.length;
    } else if (row.id !== undefined) this.#unreadable.add(row.id);
  }

  upTo(last: string | undefined): FoundDocuments {
    return {
      documents: this.documents,
      unreadable: [...this.#unreadable],
      outOfDate: this.#outOfDate,
      last,
    };
  }
}
