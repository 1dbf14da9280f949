import type { Work } from '../work/work.ts';
import type { Write } from './port.ts';

/** What an index is of. */
export interface IndexSpec {
  readonly name: string;
  /** Dotted paths, the most significant first. */
  readonly fields: readonly string[];
  readonly unique: boolean;
  /**
   * Tokens of its values may stand in a database. An engine that keeps indexes in memory has no need to know.
   */
  readonly blind?: boolean;
}

export type IndexState =
  | { readonly state: 'building'; readonly indexed: number; readonly total: number }
  | { readonly state: 'ready' }
  /**
   * Documents that were there already have equal values in a unique index: it enforces nothing, and finds as
   * others do.
   */
  | { readonly state: 'duplicates'; readonly duplicates: number };

export type IndexStatus = IndexSpec & IndexState;

export function isSameSpec(a: IndexSpec, b: IndexSpec): boolean {
  return isRefTo(a, b) && a.unique === b.unique;
}

/** A definition of a collection that its indexes are of. */
export interface DefinedBy {
  /** Of the definition; undefined when there is none any more. */
  readonly rev: string | undefined;
  /**
   * It held when the store was closed the last time: what a unique index has kept apart it goes on to, so
   * documents of the collection wait for it to be whole.
   */
  readonly wasDefined: boolean;
}

/**
 * An index that a caller knows of. By the time that it is asked, one of other fields may have its name.
 */
export interface IndexRef {
  readonly name: string;
  readonly fields: readonly string[];
}

export function isRefTo({ name, fields }: IndexSpec, ref: IndexRef): boolean {
  return name === ref.name && fields.join('\0') === ref.fields.join('\0');
}

/** An index that knows all documents of its collection that open. */
export interface UsableIndex extends IndexRef {
  /** A document may have several entries: each stands for one combination of its values. */
  readonly isMultiple: boolean;
  /**
   * It knows nothing but which documents have exactly some values in all fields: {@link FoundBy} of lists,
   * and no search.
   */
  readonly isBlind?: boolean;
}

/** Which documents a blind index finds. */
export interface FoundBy {
  readonly index: IndexRef;
  /** Parts of all fields, one behind the other, as `query/key.ts` makes them; a document has one of them. */
  readonly keys: readonly string[];
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

/** Indexes of an engine. */
export interface EngineIndexes {
  /**
   * Values are found by tokens of them, where an index asks for those; `search` and `always` find nothing.
   */
  readonly isBlind?: boolean;

  /** Makes the keys of documents before their commit is put in order, with others served in between. */
  prepare?(writes: readonly Write[], work: Work): Promise<void>;
  /**
   * Makes exactly these the indexes of a collection; ones that are there already stay as they are. Builds the
   * others in the background. Where others write to the same storage, only {@link keep} makes it hold.
   */
  define(collection: string, specs: readonly IndexSpec[], by: DefinedBy): void;

  /**
   * Makes the storage keep the indexes as they were defined, and takes up what others have made of them,
   * where it is shared. To be called after definitions have changed, and every second or so.
   *
   * @throws AppError of the storage; what is left is made up for by the next call.
   */
  keep?(): Promise<void>;

  /** Counts the changes of which indexes there are, where other processes make them, too. */
  readonly version?: number;

  /** Absent, or true: {@link keep} has nothing to do until something has changed. */
  readonly isSettled?: boolean;

  status(collection: string): readonly IndexStatus[];

  usable(collection: string): readonly UsableIndex[];

  /**
   * Up to `limit` entries of a range, from its beginning, or its end backwards. Undefined for an index that
   * there is not, or not yet.
   */
  search?(
    collection: string,
    index: IndexRef,
    range: KeyRange,
    backwards: boolean,
    limit: number,
  ): readonly IndexEntry[] | undefined;

  /** Documents that an index has no room for, and that every search of it must look at. */
  always?(collection: string, index: IndexRef): readonly IndexEntry[] | undefined;

  /** Resolves once nothing is being built. */
  built(): Promise<void>;
}
