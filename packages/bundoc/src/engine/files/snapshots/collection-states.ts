import { isOneEntry, type MemoryIndex } from '../../indexes/memory-index.ts';
import type { IndexEntry, KeyRange } from '../../port/index-port.ts';
import type { IndexPage, IndexSearch } from '../../port/snapshot-port.ts';
import type { Catalog, ListedPlace, LivingDocument } from '../catalog/catalog.ts';
import type { KeptState } from './kept-state.ts';
import { KeptTree, stateAt } from './kept-tree.ts';

/** Entries of an index that one search visits: those of later states are left out. */
const VISITED_MAX = 512;
/** Superseded states that are forgotten in one turn of the event loop. */
const FORGOTTEN_AT_ONCE = 512;

/** All snapshots of one state of a collection. */
export interface SnapshotGroup {
  /** The last commit of the project when the last of them was taken. */
  at: number;
  /** Its state is that of every commit from `since` to before `until`, which is undefined until a change. */
  readonly since: number;
  until: number | undefined;
  /** Number of documents. */
  readonly documents: number;
  /** Snapshots in use. */
  users: number;
  /** Whether it is kept for later pages. */
  isRetained: boolean;
  /** Whether its state is gone. */
  isOver: boolean;
  /** The kept states that it owns, and their bytes. */
  states: KeptState[];
  bytes: number;
}

interface KeptEntries {
  readonly tree: KeptTree<string>;
  /** States with several keys, or too many. */
  multiple: number;
}

/**
 * The states of one collection that snapshots show: the present documents, and superseded ones as long as a
 * snapshot needs them.
 *
 * A commit keeps a superseded state once, for the newest group of snapshots that shows it. When that group
 * ends, the state passes to the next older group that shows it. So a write costs the same for any number of
 * snapshots.
 */
export class CollectionStates {
  readonly name: string;
  readonly #catalog: Catalog;
  /** In the order of their commits. */
  readonly groups: SnapshotGroup[] = [];
  readonly #byId = new Map<string, KeptState[]>();
  readonly #order = new KeptTree<number>();
  readonly #entries = new Map<MemoryIndex, KeptEntries>();
  /** States that no group shows, and that are still in the orders. */
  #unshown: KeptState[] = [];

  constructor(name: string, catalog: Catalog) {
    this.name = name;
    this.#catalog = catalog;
  }

  /** The group of the present state, made if necessary. @param at the last commit of the project. */
  present(at: number): SnapshotGroup {
    const newest = this.groups.at(-1);
    if (newest !== undefined && newest.until === undefined) {
      // An index may have become ready since.
      newest.at = at;
      return newest;
    }
    const group: SnapshotGroup = {
      at,
      since: this.#catalog.changedIn(this.name),
      until: undefined,
      documents: this.#catalog.documentsIn(this.name),
      users: 0,
      isRetained: false,
      isOver: false,
      states: [],
      bytes: 0,
    };
    this.groups.push(group);
    return group;
  }

  /** The group whose state is that of a commit. */
  groupOf(asOf: number): SnapshotGroup | undefined {
    return this.groups.find(
      ({ since, until }) => since <= asOf && asOf < (until ?? Number.POSITIVE_INFINITY),
    );
  }

  /** Keeps a superseded state for the newest group. */
  keep(state: KeptState, group: SnapshotGroup): void {
    const { id, createdSeq } = state.place;
    group.states.push(state);
    group.bytes += state.bytes;
    const former = this.#byId.get(id);
    if (former === undefined) this.#byId.set(id, [state]);
    else former.push(state);
    this.#order.add(createdSeq, state);
    for (const [index, placed] of state.keys) {
      const entries = this.#entriesOf(index);
      for (const key of placed) entries.tree.add(key, state);
      if (!isOneEntry(placed)) entries.multiple++;
    }
  }

  /** Ends a group. @returns the states that no other group shows. */
  end(group: SnapshotGroup): readonly KeptState[] {
    const at = this.groups.indexOf(group);
    this.groups.splice(at, 1);
    const older = this.groups[at - 1];
    const free: KeptState[] = [];
    for (const state of group.states)
      if (older !== undefined && state.isAt(older.at)) {
        older.states.push(state);
        older.bytes += state.bytes;
      } else {
        free.push(state);
      }
    group.states = [];
    group.bytes = 0;
    group.isOver = true;
    // Without a group, the whole collection is forgotten.
    if (this.groups.length > 0) this.#forgetInTurns(free);
    return free;
  }

  /** A commit may end a group of many states, and must not wait for them to leave the orders. */
  #forgetInTurns(states: readonly KeptState[]): void {
    const isRunning = this.#unshown.length > 0;
    for (const state of states) this.#unshown.push(state);
    if (isRunning || states.length === 0) return;
    const turn = () => {
      for (const state of this.#unshown.splice(-FORGOTTEN_AT_ONCE)) this.#forget(state);
      if (this.groups.length === 0) this.#unshown = [];
      if (this.#unshown.length > 0) setImmediate(turn);
    };
    turn();
  }

  /** The state of a document in a group. */
  stateOf(group: SnapshotGroup, id: string): LivingDocument | undefined {
    const living = this.#catalog.living({ collection: this.name, id });
    if (living !== undefined && living.seq <= group.at) return living;
    return stateAt(this.#byId.get(id), group.at)?.place;
  }

  /** The documents of a group after a position, in the order of creation. Nothing may change meanwhile. */
  list(group: SnapshotGroup, after: number): Iterable<ListedPlace> {
    const present = this.#catalog.list(this.name, after);
    return group.until === undefined ? present : this.#listMerged(group, present, after);
  }

  *#listMerged({ at }: SnapshotGroup, present: Iterable<ListedPlace>, after: number): Generator<ListedPlace> {
    const kept = this.#order.from(after + 1);
    let next: [number, KeptState[]] | undefined = kept.next().value;
    const takeKept = (): ListedPlace | undefined => {
      const place = next && stateAt(next[1], at)?.place;
      next = kept.next().value;
      return place;
    };
    for (const place of present) {
      if (place.createdSeq > at) break;
      while (next !== undefined && next[0] <= place.createdSeq) {
        const superseded = takeKept();
        if (superseded !== undefined) yield superseded;
      }
      if (place.seq <= at) yield place;
    }
    while (next !== undefined && next[0] <= at) {
      const superseded = takeKept();
      if (superseded !== undefined) yield superseded;
    }
  }

  /** Whether documents of a group may have several entries in an index, or none. */
  isMultiple(index: MemoryIndex): boolean {
    return index.isMultiple || (this.#entries.get(index)?.multiple ?? 0) > 0;
  }

  /** Entries of a group in ranges of an index. */
  search(group: SnapshotGroup, index: MemoryIndex, { ranges, backwards, limit }: IndexSearch): IndexPage {
    const entries: IndexEntry[] = [];
    let visited = 0;
    for (const range of backwards ? ranges.toReversed() : ranges) {
      if (group.until === undefined) {
        for (const entry of index.entries(range, backwards))
          if (entries.push(entry) === limit) return { entries, last: entry.key };
        continue;
      }
      for (const { key, id, states } of this.#merged(index, range, backwards)) {
        const kept = stateAt(states, group.at);
        if (kept !== undefined) entries.push({ key, id: kept.place.id });
        else if (id !== undefined && this.#isAt(group, id)) entries.push({ key, id });
        if (entries.length === limit || ++visited === VISITED_MAX) return { entries, last: key };
      }
    }
    return { entries, last: undefined };
  }

  /** Present and kept entries of a range, each key once. */
  *#merged(index: MemoryIndex, { low, high }: KeyRange, backwards: boolean): Generator<MergedEntry> {
    if (!(low < high)) return;
    const present = index.entries({ low, high }, backwards);
    const tree = this.#entries.get(index)?.tree;
    const kept = backwards ? tree?.before(high) : tree?.from(low);
    const nextKept = (): [string, KeptState[]] | undefined => {
      let found = kept?.next().value;
      if (backwards && found !== undefined && found[0] >= high) found = kept?.next().value;
      return found === undefined || found[0] < low || found[0] >= high ? undefined : found;
    };
    let one: IndexEntry | undefined = present.next().value;
    let other = nextKept();
    while (one !== undefined || other !== undefined) {
      const order = orderOf(one?.key, other?.[0], backwards);
      const key = order <= 0 ? one?.key : other?.[0];
      yield {
        key: key as string,
        id: order <= 0 ? one?.id : undefined,
        states: order >= 0 ? other?.[1] : undefined,
      };
      if (order <= 0) one = present.next().value;
      if (order >= 0) other = nextKept();
    }
  }

  #isAt({ at }: SnapshotGroup, id: string): boolean {
    return (this.#catalog.seqOf({ collection: this.name, id }) ?? Number.POSITIVE_INFINITY) <= at;
  }

  #entriesOf(index: MemoryIndex): KeptEntries {
    let entries = this.#entries.get(index);
    if (entries === undefined) {
      entries = { tree: new KeptTree(), multiple: 0 };
      this.#entries.set(index, entries);
    }
    return entries;
  }

  #forget(state: KeptState): void {
    const { id, createdSeq } = state.place;
    const others = this.#byId.get(id)?.filter((one) => one !== state) ?? [];
    if (others.length === 0) this.#byId.delete(id);
    else this.#byId.set(id, others);
    this.#order.remove(createdSeq, state);
    for (const [index, placed] of state.keys) {
      const entries = this.#entriesOf(index);
      for (const key of placed) entries.tree.remove(key, state);
      if (!isOneEntry(placed)) entries.multiple--;
      if (entries.tree.isEmpty) this.#entries.delete(index);
    }
  }
}

interface MergedEntry {
  readonly key: string;
  /** The document that has the key now. */
  readonly id: string | undefined;
  /** Kept states with the key. */
  readonly states: readonly KeptState[] | undefined;
}

/** Negative when the first key comes first, 0 for equal keys. */
function orderOf(one: string | undefined, other: string | undefined, backwards: boolean): number {
  if (one === undefined) return 1;
  if (other === undefined) return -1;
  if (one === other) return 0;
  return one < other === backwards ? 1 : -1;
}
