import type { DocumentRef } from '../../../crypto/stored-text.ts';
import type { MemoryIndex } from '../../indexes/memory-index.ts';
import { type IndexRef, isRefTo, rangesBehind, type UsableIndex } from '../../port/index-port.ts';
import type { Awaitable, DocumentPage, Position, StoredDocument } from '../../port/port.ts';
import {
  type IndexPage,
  type IndexSearch,
  type SnapshotListQuery,
  type StoreSnapshot,
  snapshotTooOld,
} from '../../port/snapshot-port.ts';
import type { ListedPlace, LivingDocument } from '../catalog/catalog.ts';
import type { StateView, StoreReader } from '../documents/store-reader.ts';
import type { CollectionStates, SnapshotGroup } from './collection-states.ts';

/** Entries of one search: its documents are opened without a wait. */
const ENTRIES_AT_ONCE = 200;
/** Entries that are counted without a pause. */
const COUNTED_AT_ONCE = 512;

/** What a snapshot needs from its project. */
export interface SnapshotPort {
  readonly reader: StoreReader;
  /** Indexes of a collection that are not being built. */
  wholeIndexes(collection: string): readonly MemoryIndex[];
  release(states: CollectionStates, group: SnapshotGroup): void;
  retain(states: CollectionStates, group: SnapshotGroup): void;
}

/** A snapshot of a collection in files. */
export class FileSnapshot implements StoreSnapshot, StateView {
  readonly asOf: Position;
  readonly #port: SnapshotPort;
  readonly #states: CollectionStates;
  readonly #group: SnapshotGroup;
  #isDisposed = false;

  constructor(asOf: Position, port: SnapshotPort, states: CollectionStates, group: SnapshotGroup) {
    this.asOf = asOf;
    this.#port = port;
    this.#states = states;
    this.#group = group;
    group.users++;
  }

  async list(query: SnapshotListQuery): Promise<DocumentPage> {
    return this.#port.reader.list({ ...query, collection: this.#states.name }, this);
  }

  get(id: string): Awaitable<StoredDocument | undefined> {
    return this.#port.reader.get(this.#refOf(id), this);
  }

  getSync(id: string): StoredDocument | undefined {
    return this.#port.reader.getSync(this.#refOf(id), this);
  }

  total(): number {
    return this.#shown().documents;
  }

  usable(): readonly UsableIndex[] {
    return this.#usable().map((index) => {
      const { name, fields } = index.spec;
      return { name, fields, isMultiple: this.#states.isMultiple(index) };
    });
  }

  search(query: IndexSearch): IndexPage | undefined {
    return this.#search(query, ENTRIES_AT_ONCE);
  }

  #search(query: IndexSearch, entriesMax: number): IndexPage | undefined {
    const index = this.#find(query.index);
    const limit = Math.min(entriesMax, query.limit);
    return index && this.#states.search(this.#shown(), index, { ...query, limit });
  }

  async count(query: Pick<IndexSearch, 'index' | 'ranges' | 'work'>): Promise<number | undefined> {
    let { ranges } = query;
    for (let count = 0; ; ) {
      const search = { ...query, ranges, backwards: false, limit: COUNTED_AT_ONCE, bytesMax: 0 };
      const page = this.#search(search, COUNTED_AT_ONCE);
      if (page === undefined) return undefined;
      count += page.entries.length;
      if (page.last === undefined) return count;
      ranges = rangesBehind(ranges, page.last, false);
      const turn = query.work?.pause();
      if (turn !== undefined) await turn;
    }
  }

  /** The snapshots of one state share what it keeps. */
  get keptBytes(): number {
    return this.#group.bytes / this.#group.users;
  }

  retain(): void {
    if (!this.#group.isOver) this.#port.retain(this.#states, this.#group);
  }

  [Symbol.dispose](): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.#port.release(this.#states, this.#group);
  }

  // For the reader.

  stateOf({ id }: DocumentRef): LivingDocument | undefined {
    return this.#states.stateOf(this.#shown(), id);
  }

  after(_collection: string, position: Position): Iterable<ListedPlace> {
    return this.#states.list(this.#shown(), position);
  }

  /** Indexes that became ready with this state or before: a later one lacks keys of superseded documents. */
  #usable(): readonly MemoryIndex[] {
    const { at } = this.#shown();
    return this.#port.wholeIndexes(this.#states.name).filter(({ wholeSince }) => wholeSince <= at);
  }

  #find(ref: IndexRef): MemoryIndex | undefined {
    return this.#usable().find(({ spec }) => isRefTo(spec, ref));
  }

  #refOf(id: string): DocumentRef {
    return { collection: this.#states.name, id };
  }

  #shown(): SnapshotGroup {
    if (this.#group.isOver) throw snapshotTooOld();
    return this.#group;
  }
}
