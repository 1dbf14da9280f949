/** What an index is of. */
export interface IndexSpec {
  readonly name: string;
  /** Dotted paths, the most significant first. */
  readonly fields: readonly string[];
  readonly unique: boolean;
}

export type IndexState =
  | { readonly state: 'building'; readonly indexed: number; readonly total: number }
  | { readonly state: 'ready' }
  /** Documents that were there already have equal values in a unique index: it enforces nothing, and finds as others do. */
  | { readonly state: 'duplicates'; readonly duplicates: number };

export type IndexStatus = IndexSpec & IndexState;

/** An index that knows all documents of its collection that open. */
export interface UsableIndex {
  readonly name: string;
  readonly fields: readonly string[];
  /** A document may have several entries: each stands for one combination of its values. */
  readonly isMultiple: boolean;
}

/** A part of an index, by its keys (`query/key.ts`): `low` is in it, `high` is behind it. */
export interface KeyRange {
  readonly low: string;
  readonly high: string;
}

export interface IndexEntry {
  /** Key parts of the fields, then the place of creation. */
  readonly key: string;
  readonly id: string;
}

/** Indexes of an engine that has some. In memory, in the clear; what is kept of them on the disk is sealed. */
export interface EngineIndexes {
  /**
   * Makes exactly these the indexes of a collection; ones that are there already stay as they are. Builds the others in the background.
   *
   * @param wasDefined when the store was closed the last time: what a unique index has kept apart it goes on to, so documents of the collection
   * wait for it to be whole.
   */
  define(collection: string, specs: readonly IndexSpec[], wasDefined?: boolean): void;

  status(collection: string): readonly IndexStatus[];

  usable(collection: string): readonly UsableIndex[];

  /** Up to `limit` entries of a range, from its beginning, or its end backwards. Undefined for an index that there is not, or not yet. */
  search(
    collection: string,
    index: string,
    range: KeyRange,
    backwards: boolean,
    limit: number,
  ): readonly IndexEntry[] | undefined;

  /** Documents that an index has no room for, and that every search of it must look at. */
  always(collection: string, index: string): readonly IndexEntry[] | undefined;

  /** Resolves once nothing is being built. */
  built(): Promise<void>;
}
