import { createRequire } from 'node:module';
import { encodePosition, POSITION_BYTES, positionOf } from '../../values/key.ts';
import { type Path, pathOf } from '../../values/path.ts';
import type { Value } from '../../values/value.ts';
import type { IndexEntry, IndexSpec, IndexState, KeyRange } from '../index-port.ts';
import { type IndexKeys, indexKeysOf } from './index-keys.ts';

/** Behind every key that begins so: keys are made of units up to 0xff. */
const BEHIND = '\u0100';

/** A CommonJS module whose default export bundlers and Node take for different things. */
const { default: BTree } = createRequire(import.meta.url)('sorted-btree') as typeof import('sorted-btree');

/**
 * Bytes of memory of an entry beside the characters of its key: in the tree, in the map by ids, of the key
 * itself.
 */
const ENTRY_BYTES = 120;

/** A document of an index. */
export interface IndexedDocument {
  readonly id: string;
  readonly position: number;
  readonly keys: IndexKeys;
}

/**
 * One index in memory: an ordered tree from keys with places to ids, and each document's keys, to take them
 * out again.
 *
 * One class, because the tree and the keys of each document change together.
 */
export class MemoryIndex {
  readonly spec: IndexSpec;
  readonly #paths: readonly Path[];
  readonly #tree = new BTree<string, string>(undefined, (a, b) => (a < b ? -1 : Number(a > b)));
  /** Keys with places, by id; most documents have one. */
  readonly #keysOf = new Map<string, string | readonly string[]>();
  /** Documents with too many keys, and their places. */
  readonly #always = new Map<string, number>();
  /** Keys that a unique index keeps apart, by id. */
  readonly #complete = new Map<string, readonly string[]>();
  #multiple = 0;
  /** Characters of the keys with places. */
  #keysLength = 0;
  /** Ready, unless it is said otherwise. */
  progress: IndexState = { state: 'ready' };

  constructor(spec: IndexSpec) {
    this.spec = spec;
    this.#paths = spec.fields.map(pathOf);
  }

  /** Whether documents have several entries, or none and are candidates always. */
  get isMultiple(): boolean {
    return this.#multiple + this.#always.size > 0;
  }

  get size(): number {
    return this.#tree.size;
  }

  /** Bytes of memory, as an estimate. */
  get memoryBytes(): number {
    return this.#tree.size * ENTRY_BYTES + this.#keysLength;
  }

  /** Documents whose keys it has no room for. */
  get always(): readonly IndexEntry[] {
    return Array.from(this.#always, ([id, position]) => ({ key: encodePosition(position), id }));
  }

  keysFor(document: Value): IndexKeys {
    return indexKeysOf(this.#paths, document);
  }

  has(id: string): boolean {
    return this.#keysOf.has(id) || this.#always.has(id);
  }

  /** How many entries a document has. */
  entriesOf(id: string): number {
    const keys = this.#keysOf.get(id);
    return typeof keys === 'string' ? 1 : (keys?.length ?? 0);
  }

  /** Makes these the keys of a document. */
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

  /** The keys of a document that a unique index keeps apart. */
  #completeOf(id: string): readonly string[] {
    return this.#complete.get(id) ?? [];
  }

  /**
   * Keys of a unique index that more than one document has, each counted once for every document too many.
   */
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

  /** All documents, in no order. They may change meanwhile. */
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

  /** Documents that have a key. */
  *holdersOf(key: string): Generator<string> {
    for (const [placed, id] of this.#tree.entries(key)) {
      if (placed >= key + BEHIND) return;
      yield id;
    }
  }

  search({ low, high }: KeyRange, backwards: boolean, limit: number): IndexEntry[] {
    if (!(low < high)) return [];
    const entries: IndexEntry[] = [];
    if (!backwards) {
      for (const [key, id] of this.#tree.entries(low)) {
        if (key >= high || entries.length === limit) break;
        entries.push({ key, id });
      }
      return entries;
    }
    for (const [key, id] of this.#tree.entriesReversed(high)) {
      if (key < low || entries.length === limit) break;
      if (key < high) entries.push({ key, id });
    }
    return entries;
  }
}
