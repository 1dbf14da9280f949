import { setImmediate } from 'node:timers/promises';
import { AppError } from '@bundoc/shared/errors';
import type { DocumentRef } from '../../cipher/stored-text.ts';
import { readValue } from '../../query/value.ts';
import type { IndexKeys } from '../indexes/index-keys.ts';
import { MemoryIndex } from '../indexes/memory-index.ts';
import type {
  EngineIndexes,
  IndexEntry,
  IndexSpec,
  IndexStatus,
  KeyRange,
  UsableIndex,
} from '../indexes/port.ts';
import type { DocumentPage, ListQuery } from '../port.ts';
import type { DocumentState } from './record.ts';

/** What a document is found by, by index; made in the critical section of a commit, and taken over once that is durable. */
export type DocumentKeys = ReadonlyMap<MemoryIndex, IndexKeys>;

/** What an index is built of. */
export interface IndexedDocuments {
  list(query: ListQuery): Promise<DocumentPage>;
  /** The revision of a living document, in hex. */
  revOf(ref: DocumentRef): string | undefined;
  countOf(collection: string): number;
}

const NO_KEYS: IndexKeys = { keys: [], complete: [], tooMany: false };
const BUILD_PAGE = { limit: 200, bytesMax: 1_048_576 };

interface Indexed {
  readonly indexes: readonly MemoryIndex[];
  /** Indexes that the documents of before are being put into. */
  building: readonly MemoryIndex[];
}

/**
 * The indexes of an embedded store. A commit's documents enter them as it becomes visible, in the same turn; documents of before enter in the
 * background, each unless it has changed meanwhile, which has put it in already.
 */
export class CollectionIndexes implements EngineIndexes {
  readonly #documents: IndexedDocuments;
  readonly #indexed = new Map<string, Indexed>();
  readonly #onFailure: (error: unknown) => void;
  /** Collections of whose unique indexes nobody knows yet what they keep apart: they were whole before the store was opened. */
  readonly #held = new Set<string>();
  #builds: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(documents: IndexedDocuments, onFailure: (error: unknown) => void) {
    this.#documents = documents;
    this.#onFailure = onFailure;
  }

  define(collection: string, specs: readonly IndexSpec[], wasDefined = false): void {
    if (wasDefined && specs.some(({ unique }) => unique)) this.#held.add(collection);
    const before = this.#indexed.get(collection);
    const kept = (spec: IndexSpec) =>
      before?.indexes.find((index) => isSameSpec(index.spec, spec) && index.progress.state !== 'duplicates');
    const indexes = specs.map((spec) => kept(spec) ?? new MemoryIndex(spec));
    if (indexes.length === 0) {
      this.#indexed.delete(collection);
      this.#held.delete(collection);
      return;
    }
    const building = indexes.filter(
      (index) => before === undefined || !before.indexes.includes(index) || before.building.includes(index),
    );
    const total = this.#documents.countOf(collection);
    for (const index of building) index.progress = { state: 'building', indexed: 0, total };
    const indexed: Indexed = { indexes, building };
    this.#indexed.set(collection, indexed);
    if (building.length > 0)
      this.#builds = this.#builds.then(() => this.#build(collection, indexed)).catch(this.#onFailure);
  }

  status(collection: string): readonly IndexStatus[] {
    return (this.#indexed.get(collection)?.indexes ?? []).map(({ spec, progress }) => ({
      ...spec,
      ...progress,
    }));
  }

  usable(collection: string): readonly UsableIndex[] {
    return (this.#indexed.get(collection)?.indexes ?? [])
      .filter(({ progress }) => progress.state !== 'building')
      .map(({ spec, isMultiple }) => ({ name: spec.name, fields: spec.fields, isMultiple }));
  }

  search(
    collection: string,
    index: string,
    range: KeyRange,
    backwards: boolean,
    limit: number,
  ): readonly IndexEntry[] | undefined {
    return this.#findWhole(collection, index)?.search(range, backwards, limit);
  }

  always(collection: string, index: string): readonly IndexEntry[] | undefined {
    return this.#findWhole(collection, index)?.always;
  }

  /** Whether documents may be put into a collection: not before its unique indexes know those that are there. */
  isHeld(collection: string): boolean {
    return this.#held.size > 0 && this.#held.has(collection);
  }

  built(): Promise<void> {
    return this.#builds;
  }

  /** Ends what is being built. */
  stop(): Promise<void> {
    this.#stopped = true;
    return this.#builds;
  }

  /** A document's keys; undefined for a collection without indexes. @param text of the stored document. */
  keysOf(collection: string, text: Buffer): DocumentKeys | undefined {
    const indexed = this.#indexed.get(collection);
    if (indexed === undefined) return undefined;
    const value = readValue(text.toString());
    return new Map(indexed.indexes.map((index) => [index, index.keysFor(value)]));
  }

  /** Whether a collection has indexes. */
  has(collection: string): boolean {
    return this.#indexed.has(collection);
  }

  /** What a delete leaves. */
  noKeysOf(collection: string): DocumentKeys | undefined {
    const indexed = this.#indexed.get(collection);
    return indexed && new Map(indexed.indexes.map((index) => [index, NO_KEYS]));
  }

  /**
   * Takes over a committed state.
   *
   * @param text of the living document; undefined for a deleted one.
   * @param keys as they were made for the commit. An index that was defined since has none there yet.
   */
  apply(state: DocumentState, text: Buffer | undefined, keys: DocumentKeys | undefined): void {
    const indexed = this.#indexed.get(state.collection);
    if (indexed === undefined) return;
    for (const index of indexed.indexes) {
      if (text === undefined) index.remove(state.id);
      else
        index.put(state.id, state.createdSeq, keys?.get(index) ?? index.keysFor(readValue(text.toString())));
    }
  }

  #findWhole(collection: string, name: string): MemoryIndex | undefined {
    return this.#indexed
      .get(collection)
      ?.indexes.find(({ spec, progress }) => spec.name === name && progress.state !== 'building');
  }

  async #build(collection: string, indexed: Indexed): Promise<void> {
    const documents = this.#documents;
    const { building } = indexed;
    let done = 0;
    const isOver = () => this.#stopped || this.#indexed.get(collection) !== indexed;
    for (let after: number | undefined = 0; after !== undefined; ) {
      if (isOver()) return;
      const page: DocumentPage = await documents.list({ collection, after, ...BUILD_PAGE });
      if (isOver()) return;
      for (const { metadata, text, position } of page.documents) {
        const id = metadata._id;
        // Whatever has changed since was put in by its commit.
        if (documents.revOf({ collection, id }) !== metadata._rev) continue;
        const value = readValue(text.toString());
        for (const index of building) if (!index.has(id)) index.put(id, position, index.keysFor(value));
      }
      done += page.documents.length;
      const total = Math.max(done, documents.countOf(collection));
      for (const index of building) index.progress = { state: 'building', indexed: done, total };
      after = page.next;
      await setImmediate();
    }
    for (const index of building) index.progress = finished(index);
    indexed.building = [];
    this.#held.delete(collection);
  }
}

function isSameSpec(a: IndexSpec, b: IndexSpec): boolean {
  return a.name === b.name && a.unique === b.unique && a.fields.join('\0') === b.fields.join('\0');
}

function finished(index: MemoryIndex) {
  const duplicates = index.spec.unique ? index.duplicates() : 0;
  return duplicates === 0 ? ({ state: 'ready' } as const) : ({ state: 'duplicates', duplicates } as const);
}

/** Who has which key of a unique index, as far as the commits of one group that are not applied yet change it. */
type Holders = Map<MemoryIndex, Map<string, string | undefined>>;

/** The unique indexes as the commits of one group leave them, one commit after another. */
export class UniquenessOfGroup {
  readonly #holders: Holders = new Map();
  /** Keys of documents that the group has written. */
  readonly #keysOf = new Map<MemoryIndex, Map<string, readonly string[]>>();

  /** Looks at a commit's documents in their order; takes effect for the next commit when `accept` is called. */
  commit(): { write(ref: DocumentRef, keys: DocumentKeys): void; accept(): void } {
    const holders: Holders = new Map();
    const keysOf = new Map<MemoryIndex, Map<string, readonly string[]>>();
    const holderOf = (index: MemoryIndex, key: string, id: string): string | undefined => {
      for (const layer of [holders, this.#holders]) {
        const map = layer.get(index);
        if (map?.has(key)) return map.get(key);
      }
      return index.otherWith(key, id);
    };
    return {
      write: ({ id }, keys) => {
        for (const [index, own] of keys) {
          if (!index.spec.unique || index.progress.state === 'duplicates') continue;
          const before =
            keysOf.get(index)?.get(id) ?? this.#keysOf.get(index)?.get(id) ?? index.completeOf(id);
          for (const key of before) into(holders, index).set(key, undefined);
          for (const key of own.complete) {
            const holder = holderOf(index, key, id);
            if (holder !== undefined && holder !== id)
              throw new AppError('unique_violation', {
                detail: `another document has the same values in the unique index ${JSON.stringify(index.spec.name)}`,
              });
            into(holders, index).set(key, id);
          }
          into(keysOf, index).set(id, own.complete);
        }
      },
      accept: () => {
        for (const [index, map] of holders)
          for (const [key, id] of map) into(this.#holders, index).set(key, id);
        for (const [index, map] of keysOf)
          for (const [id, own] of map) into(this.#keysOf, index).set(id, own);
      },
    };
  }
}

function into<V>(maps: Map<MemoryIndex, Map<string, V>>, index: MemoryIndex): Map<string, V> {
  const known = maps.get(index);
  if (known !== undefined) return known;
  const map = new Map<string, V>();
  maps.set(index, map);
  return map;
}
