import { createRequire } from 'node:module';
import { encodePosition, POSITION_BYTES, positionOf } from '../../values/key.ts';
import { type Path, pathOf } from '../../values/path.ts';
import type { Value } from '../../values/value.ts';
import type { IndexEntry, IndexSpec, IndexState, KeyRange } from '../port/index-port.ts';
import { type IndexKeys, indexKeysOf } from './index-keys.ts';

/** Sorts after every key with the same start: keys consist of units up to 0xff. */
const PREFIX_END = '\u0100';

/** A CommonJS module whose default export bundlers and Node interpret differently. */
const { default: BTree } = createRequire(import.meta.url)('sorted-btree') as typeof import('sorted-btree');

/**
 * Bytes of memory of an entry without the characters of its key: in the tree, in the map of ids, and the key
 * object.
 */
const ENTRY_BYTES = 120;

/** A document in an index. */
export interface IndexedDocument {
  readonly id: string;
  readonly position: number;
  readonly keys: IndexKeys;
}

/**
 * One index in memory: an ordered tree from keys with positions to ids, and each document's keys for their
 * removal.
 */
export class MemoryIndex {
  readonly spec: IndexSpec;
  readonly #paths: readonly Path[];
  readonly #tree = new BTree<string, string>(undefined, (a, b) => (a < b ? -1 : Number(a > b)));
  /** Keys with positions, by id; most documents have one. */
  readonly #keysOf = new Map<string, string | readonly string[]>();
  /** Documents with too many keys, and their positions. */
  readonly #always = new Map<string, number>();
  /** Keys that a unique index enforces, by id. */
  readonly #complete = new Map<string, readonly string[]>();
  #multiple = 0;
  /** Total length of the keys with positions. */
  #keysLength = 0;
  /** Ready, unless it is being built. */
  progress: IndexState = { state: 'ready' };
  /** It has every document of this state of its collection and of later ones. */
  wholeSince = 0;

  constructor(spec: IndexSpec) {
    this.spec = spec;
    this.#paths = spec.fields.map(pathOf);
  }

  /** Whether some documents have several entries, or none because they have too many. */
  get isMultiple(): boolean {
    return this.#multiple + this.#always.size > 0;
  }

  get size(): number {
    return this.#tree.size;
  }

  /** Estimated memory, bytes. */
  get memoryBytes(): number {
    return this.#tree.size * ENTRY_BYTES + this.#keysLength;
  }

  /** Documents with too many keys. */
  get always(): readonly IndexEntry[] {
    return Array.from(this.#always, ([id, position]) => this.alwaysEntry(id, position));
  }

  /** The entry of a document with too many keys. */
  alwaysEntry(id: string, position: number): IndexEntry {
    return { key: encodePosition(position), id };
  }

  /** The keys of a document with its position; undefined when it is not in the index. */
  placedOf(id: string): readonly string[] | 'too many' | undefined {
    if (this.#always.has(id)) return 'too many';
    const placed = this.#keysOf.get(id);
    return typeof placed === 'string' ? [placed] : placed;
  }

  keysFor(document: Value): IndexKeys {
    return indexKeysOf(this.#paths, document);
  }

  has(id: string): boolean {
    return this.#keysOf.has(id) || this.#always.has(id);
  }

  /** The number of a document's entries. */
  entriesOf(id: string): number {
    const keys = this.#keysOf.get(id);
    return typeof keys === 'string' ? 1 : (keys?.length ?? 0);
  }

  /** Sets the keys of a document. */
  put(id: string, position: number, { keys, complete, tooMany }: IndexKeys): void {
    this.remove(id);
    if (this.spec.unique && complete.length > 0) this.#complete.set(id, complete);
    if (tooMany) {
      this.#always.set(id, position);
      return;
    }
    const place = encodePosition(position);
    const placed = keys.map((key) => key + place);
    for (const key of placed) {
      this.#tree.set(key, id);
      this.#keysLength += key.length;
    }
    const [only] = placed;
    if (placed.length > 1) this.#multiple++;
    this.#keysOf.set(id, placed.length === 1 && only !== undefined ? only : placed);
  }

  remove(id: string): void {
    this.#always.delete(id);
    this.#complete.delete(id);
    const keys = this.#keysOf.get(id);
    if (keys === undefined) return;
    this.#keysOf.delete(id);
    if (typeof keys !== 'string') this.#multiple--;
    for (const key of typeof keys === 'string' ? [keys] : keys) {
      this.#tree.delete(key);
      this.#keysLength -= key.length;
    }
  }

  /** The keys of a document that a unique index enforces. */
  #completeOf(id: string): readonly string[] {
    return this.#complete.get(id) ?? [];
  }

  /** Number of duplicates in a unique index: for each key, the documents after the first. */
  duplicates(): number {
    const seen = new Set<string>();
    let duplicates = 0;
    for (const keys of this.#complete.values())
      for (const key of keys) {
        if (seen.has(key)) duplicates++;
        seen.add(key);
      }
    return duplicates;
  }

  /** All documents, unordered. They may change during the iteration. */
  *documents(): Generator<IndexedDocument> {
    for (const [id, placed] of this.#keysOf) {
      const all = typeof placed === 'string' ? [placed] : placed;
      const keys = all.map((key) => key.slice(0, -POSITION_BYTES));
      const position = positionOf(all[0] as string);
      yield { id, position, keys: { keys, complete: this.#completeOf(id), tooMany: false } };
    }
    for (const [id, position] of this.#always)
      yield { id, position, keys: { keys: [], complete: [], tooMany: true } };
  }

  /** Documents with a key. */
  *holdersOf(key: string): Generator<string> {
    for (const [placed, id] of this.#tree.entries(key)) {
      if (placed >= key + PREFIX_END) return;
      yield id;
    }
  }

  search(range: KeyRange, backwards: boolean, limit: number): IndexEntry[] {
    const entries: IndexEntry[] = [];
    if (limit > 0)
      for (const entry of this.entries(range, backwards)) if (entries.push(entry) === limit) break;
    return entries;
  }

  /** The entries of a range. The index must not change during the iteration. */
  *entries({ low, high }: KeyRange, backwards: boolean): Generator<IndexEntry, undefined> {
    if (!(low < high)) return;
    if (!backwards) {
      for (const [key, id] of this.#tree.entries(low)) {
        if (key >= high) return;
        yield { key, id };
      }
      return;
    }
    for (const [key, id] of this.#tree.entriesReversed(high)) {
      if (key < low) return;
      if (key < high) yield { key, id };
    }
  }
}
