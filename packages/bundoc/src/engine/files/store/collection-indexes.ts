import { hasCode } from '@bundoc/shared/contract/app-error';
import type { DocumentContent, DocumentRef } from '../../../crypto/stored-text.ts';
import { readValue } from '../../../values/value.ts';
import type { OwnWork, Work } from '../../../work/work.ts';
import type { PlanIndexing } from '../../commit/commit-plan.ts';
import { CommitEntries } from '../../indexes/commit-entries.ts';
import type { IndexKeys } from '../../indexes/index-keys.ts';
import { MemoryIndex } from '../../indexes/memory-index.ts';
import { isOfOwnMembers, keysInTurns, keysOfContent } from '../../indexes/prepared-keys.ts';
import { GroupUniqueness } from '../../indexes/uniqueness.ts';
import {
  type DefinedBy,
  type EngineIndexes,
  type IndexSpec,
  type IndexStatus,
  isSameSpec,
  type UsableIndex,
} from '../../port/index-port.ts';
import type { DocumentPage, ListQuery, StoredDocument, Write } from '../../port/port.ts';
import type { DocumentState } from '../../port/state.ts';
import type { StoredIndex, StoredIndexes } from '../catalog/index-file.ts';

/**
 * The keys of a document by index, computed in the critical section of a commit and applied once that is
 * durable.
 */
export type DocumentKeys = ReadonlyMap<MemoryIndex, IndexKeys>;

/** The documents that an index is built from. */
export interface IndexedDocuments {
  list(query: ListQuery): Promise<DocumentPage>;
  /** The revision of a living document, in hex. */
  revOf(ref: DocumentRef): string | undefined;
  countOf(collection: string): number;
  /** A position since which a collection has not changed. */
  changedIn(collection: string): number;
  /** Creation position of a living document. */
  positionOf(ref: DocumentRef): number | undefined;
  /** Position of the last change of a living document. */
  seqOf(ref: DocumentRef): number | undefined;
  /** Documents that changed after a position. */
  changedSince(seq: number): Iterable<DocumentRef>;
  get(ref: DocumentRef): Promise<StoredDocument | undefined>;
  /** Resolves once all currently planned commits are readable or refused. */
  whenDecidedIsOver(): Promise<void>;
}

const NO_KEYS: IndexKeys = { keys: [], complete: [], tooMany: false };
const BUILD_PAGE = { limit: 200, bytesMax: 1_048_576 };

interface Indexed {
  readonly indexes: readonly MemoryIndex[];
  /** Indexes to which existing documents are being added. */
  building: readonly MemoryIndex[];
}

/**
 * The indexes of a store in files. A commit's documents enter them synchronously when the commit becomes
 * visible. Existing documents enter in the background, except those that have changed in the meantime and are
 * therefore already in.
 */
export class CollectionIndexes implements EngineIndexes {
  readonly #documents: IndexedDocuments;
  readonly #indexed = new Map<string, Indexed>();
  readonly #onFailure: (error: unknown) => void;
  readonly #ownWork: OwnWork;
  /** Keys computed before their commit was put in order, and the indexes they were computed for. */
  readonly #prepared = new WeakMap<DocumentContent, { readonly of: Indexed; readonly keys: DocumentKeys }>();
  /**
   * Collections with unique indexes that are not restored yet. The indexes were ready before the store was
   * opened, so writes must wait for them.
   */
  readonly #held = new Set<string>();
  #stored: StoredIndexes | undefined;
  #builds: Promise<void> = Promise.resolve();
  #built = 0;
  #stopped = false;

  /** @param stored the stored indexes, for the first definitions. */
  constructor(
    documents: IndexedDocuments,
    stored: StoredIndexes | undefined,
    onFailure: (error: unknown) => void,
    own: OwnWork,
  ) {
    this.#ownWork = own;
    this.#stored = stored;
    this.#documents = documents;
    this.#onFailure = onFailure;
  }

  define(collection: string, specs: readonly IndexSpec[], { wasDefined }: DefinedBy): void {
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
      this.#builds = this.#builds
        .then(() => this.#build(collection, indexed, wasDefined))
        .catch(this.#onFailure);
  }

  status(collection: string): readonly IndexStatus[] {
    return (this.#indexed.get(collection)?.indexes ?? []).map(
      ({ spec: { name, fields, unique }, progress, memoryBytes: bytes }) => ({
        name,
        fields,
        unique,
        bytes,
        ...progress,
      }),
    );
  }

  usable(collection: string): readonly UsableIndex[] {
    return this.wholeOf(collection).map(({ spec, isMultiple }) => ({
      name: spec.name,
      fields: spec.fields,
      isMultiple,
    }));
  }

  /**
   * Whether documents must not be put into a collection yet, because its unique indexes do not have all
   * existing documents.
   */
  isHeld(collection: string): boolean {
    return this.#held.size > 0 && this.#held.has(collection);
  }

  built(): Promise<void> {
    return this.#builds;
  }

  /** Stops the builds. */
  stop(): Promise<void> {
    this.#stopped = true;
    return this.#builds;
  }

  async prepare(writes: readonly Write[], work: Work): Promise<void> {
    for (const write of writes) {
      const of = this.#indexed.get(write.ref.collection);
      if (write.kind === 'delete' || of === undefined || !of.indexes.every(isOfOwnMembers)) continue;
      const keys = await keysOfContent(of.indexes, write.content, work);
      this.#prepared.set(write.content, { of, keys: keysByIndex(of.indexes, keys) });
    }
    work.leave();
  }

  /**
   * A document's keys; undefined for a collection without indexes.
   *
   * @param text of the stored document.
   * @param content of the same document, which finds its prepared keys.
   */
  keysOf(collection: string, text: Buffer, content: DocumentContent): DocumentKeys | undefined {
    const indexed = this.#indexed.get(collection);
    if (indexed === undefined) return undefined;
    const prepared = this.#prepared.get(content);
    if (prepared?.of === indexed) return prepared.keys;
    const value = readValue(text.toString());
    return new Map(indexed.indexes.map((index) => [index, index.keysFor(value)]));
  }

  /** Estimated memory, bytes. */
  get memoryBytes(): number {
    let bytes = 0;
    for (const { indexes } of this.#indexed.values()) for (const index of indexes) bytes += index.memoryBytes;
    return bytes;
  }

  /** Whether a collection has indexes. */
  has(collection: string): boolean {
    return this.#indexed.has(collection);
  }

  /** The empty keys that a delete leaves. */
  noKeysOf(collection: string): DocumentKeys | undefined {
    const indexed = this.#indexed.get(collection);
    return indexed && new Map(indexed.indexes.map((index) => [index, NO_KEYS]));
  }

  /**
   * Applies a committed state.
   *
   * @param text of the living document; undefined for a deleted one.
   * @param keys computed for the commit; an index that was defined later has none in it.
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

  /** Indexes of a collection that are not being built. */
  wholeOf(collection: string): readonly MemoryIndex[] {
    const indexes = this.#indexed.get(collection)?.indexes ?? [];
    return indexes.filter(({ progress }) => progress.state !== 'building');
  }

  /** A counter that changes when an index becomes ready. */
  get builds(): number {
    return this.#built;
  }

  /** All indexes, for the file; undefined while some are not ready. */
  get whole(): readonly (readonly [string, MemoryIndex])[] | undefined {
    const all = [...this.#indexed].flatMap(([collection, { indexes }]) =>
      indexes.map((index) => [collection, index] as const),
    );
    return all.every(([, index]) => index.progress.state === 'ready') ? all : undefined;
  }

  async #build(collection: string, indexed: Indexed, wasDefined: boolean): Promise<void> {
    if (wasDefined && (await this.#restore(collection, indexed))) return;
    const documents = this.#documents;
    const { building } = indexed;
    using work = this.#ownWork('index');
    let done = 0;
    const isOver = () => this.#stopped || this.#indexed.get(collection) !== indexed;
    for (let after: number | undefined = 0; after !== undefined; ) {
      if (isOver()) return;
      const query = { collection, after, ...BUILD_PAGE };
      const page: DocumentPage = await work.outside(() => documents.list(query));
      for (const { metadata, text, position } of page.documents) {
        const id = metadata._id;
        const keys = keysByIndex(building, await keysInTurns(building, [text], work));
        if (isOver()) return;
        // A later change has already entered with its commit.
        if (documents.revOf({ collection, id }) !== metadata._rev) continue;
        for (const [index, made] of keys) if (!index.has(id)) index.put(id, position, made);
      }
      done += page.documents.length;
      const total = Math.max(done, documents.countOf(collection));
      for (const index of building) index.progress = { state: 'building', indexed: done, total };
      after = page.next;
    }
    // Commits planned before this index existed were not checked against it, so its duplicates are counted.
    await work.outside(() => documents.whenDecidedIsOver());
    if (isOver()) return;
    this.#finish(collection, indexed);
  }

  #finish(collection: string, indexed: Indexed): void {
    const wholeSince = this.#documents.changedIn(collection);
    for (const index of indexed.building) {
      index.progress = finished(index);
      index.wholeSince = wholeSince;
    }
    indexed.building = [];
    this.#held.delete(collection);
    this.#built++;
    if (this.#indexed.values().every(({ building }) => building.length === 0)) this.#stored = undefined;
  }

  /**
   * Restores the indexes of a collection from the stored ones, and later changes from the documents.
   *
   * @returns whether that was possible.
   */
  async #restore(collection: string, indexed: Indexed): Promise<boolean> {
    const stored = this.#stored;
    if (stored === undefined) return false;
    const documents = this.#documents;
    const pairs = indexed.building.map((index): readonly [MemoryIndex, StoredIndex | undefined] => [
      index,
      stored.indexes.find((one) => one.collection === collection && isSameSpec(one.spec, index.spec)),
    ]);
    if (!pairs.every(([, from]) => from !== undefined)) return false;
    const isOver = () => this.#stopped || this.#indexed.get(collection) !== indexed;
    using work = this.#ownWork('index');
    for (const [index, from] of pairs)
      for (const { id, position, keys } of (from as StoredIndex).documents) {
        const turn = work.pause();
        if (turn !== undefined) {
          await turn;
          if (isOver()) return true;
        }
        const seq = documents.seqOf({ collection, id });
        if (seq !== undefined && seq <= stored.asOf && !index.has(id)) index.put(id, position, keys);
      }
    const changed = [...documents.changedSince(stored.asOf)].filter((ref) => ref.collection === collection);
    for (const ref of changed) {
      const document = await work.outside(() => documents.get(ref).catch(ignoreDamage));
      const made = document && (await keysInTurns(indexed.building, [document.text], work));
      const keys = made && keysByIndex(indexed.building, made);
      if (isOver()) return true;
      const position = documents.positionOf(ref);
      if (keys === undefined || position === undefined) continue;
      if (documents.revOf(ref) !== document?.metadata._rev) continue;
      for (const [index, made] of keys) if (!index.has(ref.id)) index.put(ref.id, position, made);
    }
    this.#finish(collection, indexed);
    return true;
  }
}

function keysByIndex(indexes: readonly MemoryIndex[], keys: readonly IndexKeys[]): DocumentKeys {
  return new Map(indexes.map((index, at) => [index, keys[at] ?? NO_KEYS]));
}

/** An undecryptable document is in no index. Reading it reports the damage. */
function ignoreDamage(error: unknown): undefined {
  if (!hasCode(error, 'integrity_error')) throw error;
}

function finished(index: MemoryIndex) {
  const duplicates = index.spec.unique ? index.duplicates() : 0;
  return duplicates === 0 ? ({ state: 'ready' } as const) : ({ state: 'duplicates', duplicates } as const);
}

/** The effect of one group's commits on the indexes. */
export function planIndexing(indexes: CollectionIndexes): PlanIndexing<DocumentKeys> {
  const uniqueness = new GroupUniqueness<MemoryIndex>((index, key) => index.holdersOf(key));
  let ofCommit = new CommitEntries();
  return {
    commit: () => {
      ofCommit = new CommitEntries();
      const { write, check, accept } = uniqueness.commit();
      return { write: ({ at, state }, keys) => write(state.id, enforced(keys), at), check, accept };
    },
    entriesOf: (write, { state: { collection, id }, text }) => {
      const made =
        text === undefined || write.kind === 'delete'
          ? indexes.noKeysOf(collection)
          : indexes.keysOf(collection, text, write.content);
      for (const [index, { keys }] of made ?? []) ofCommit.add(keys.length + index.entriesOf(id));
      return made;
    },
  };
}

/** A document's keys in the unique indexes that enforce uniqueness. */
function enforced(keys: DocumentKeys): Iterable<readonly [MemoryIndex, readonly string[]]> {
  return keys
    .entries()
    .filter(([index]) => index.spec.unique && index.progress.state !== 'duplicates')
    .map(([index, { complete }]) => [index, complete] as const);
}
