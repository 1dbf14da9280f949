import { createRequire } from 'node:module';
import { encodePosition, POSITION_BYTES, positionOf } from '../../values/key.ts';
import { type Path, pathOf } from '../../values/path.ts';
import type { Value } from '../../values/value.ts';
import {
  ALWAYS,
  type IndexEntry,
  type IndexSpec,
  type IndexState,
  type KeyRange,
} from '../port/index-port.ts';
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

/** Whether the keys of a document are a single one, and not {@link ALWAYS}. */
export function isOneEntry(placed: readonly string[]): boolean {
  return placed.length === 1 && !isAlways(placed);
}

function isAlways([first]: readonly string[]): boolean {
  return first?.startsWith(ALWAYS.low) === true;
}

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
  readonly paths: readonly Path[];
  readonly #tree = new BTree<string, string>(undefined, (a, b) => (a < b ? -1 : Number(a > b)));
  /** Keys with positions, by id; most documents have one. One with too many keys has {@link ALWAYS}. */
  readonly #keysOf = new Map<string, string | readonly string[]>();
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
    this.paths = spec.fields.map(pathOf);
  }

  /** Whether some documents have several entries, or none because they have too many. */
  get isMultiple(): boolean {
    return this.#multiple > 0;
  }

  get size(): number {
    return this.#tree.size;
  }

  /** Estimated memory, bytes. */
  get memoryBytes(): number {
    return this.#tree.size * ENTRY_BYTES + this.#keysLength;
  }

  /** The keys of a document with its position; undefined when it is not in the index. */
  placedOf(id: string): readonly string[] | undefined {
    const placed = this.#keysOf.get(id);
    return typeof placed === 'string' ? [placed] : placed;
  }

  keysFor(document: Value): IndexKeys {
    return indexKeysOf(this.paths, document);
  }

  has(id: string): boolean {
    return this.#keysOf.has(id);
  }

  /** The number of a document's entries. */
  entriesOf(id: string): number {
    return this.placedOf(id)?.length ?? 0;
  }

  /** Sets the keys of a document. */
  put(id: string, position: number, { keys, complete, tooMany }: IndexKeys): void {
    this.remove(id);
    if (this.spec.unique && complete.length > 0) this.#complete.set(id, complete);
    const place = encodePosition(position);
    const placed = (tooMany ? [ALWAYS.low] : keys).map((key) => key + place);
    for (const key of placed) {
      this.#tree.set(key, id);
      this.#keysLength += key.length;
    }
    const [only] = placed;
    if (!isOneEntry(placed)) this.#multiple++;
    this.#keysOf.set(id, placed.length === 1 && only !== undefined ? only : placed);
  }

  remove(id: string): void {
    this.#complete.delete(id);
    const placed = this.placedOf(id);
    if (placed === undefined) return;
    this.#keysOf.delete(id);
    if (!isOneEntry(placed)) this.#multiple--;
    for (const key of placed) {
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
      const position = positionOf(all[0] as string);
      const tooMany = isAlways(all);
      const keys = tooMany ? [] : all.map((key) => key.slice(0, -POSITION_BYTES));
      yield { id, position, keys: { keys, complete: this.#completeOf(id), tooMany } };
    }
  }

  /** Documents with a key. */
  *holdersOf(key: string): Generator<string> {
    for (const [placed, id] of this.#tree.entries(key)) {
      if (placed >= key + PREFIX_END) return;
      yield id;
    }
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
