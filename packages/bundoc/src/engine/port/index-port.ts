import { earlierKey, laterKey } from '../../values/key.ts';
import type { Work } from '../../work/work.ts';
import type { Write } from './port.ts';

/** The definition of one index. */
export interface IndexSpec {
  readonly name: string;
  /** Dotted paths, most significant first. */
  readonly fields: readonly string[];
  readonly unique: boolean;
}

export type IndexState =
  | { readonly state: 'building'; readonly indexed: number; readonly total: number }
  | { readonly state: 'ready' }
  /**
   * Existing documents have equal values in a unique index. It enforces nothing, and serves queries like any
   * other.
   */
  | { readonly state: 'duplicates'; readonly duplicates: number };

export type IndexStatus = IndexSpec &
  IndexState & {
    /** Bytes of the database, or of memory. */
    readonly bytes: number;
  };

export function isSameSpec(a: IndexSpec, b: IndexSpec): boolean {
  return isRefTo(a, b) && a.unique === b.unique;
}

/** The definition that a collection's indexes come from. */
export interface DefinedBy {
  /** Its revision; undefined after its removal. */
  readonly rev: string | undefined;
  /**
   * Whether it was in effect when the store was last closed. A unique index must then keep enforcing, so
   * writes to the collection wait until it is ready.
   */
  readonly wasDefined: boolean;
}

/** An index that a caller knows. When it is used, another index may already have its name. */
export interface IndexRef {
  readonly name: string;
  readonly fields: readonly string[];
}

export function isRefTo({ name, fields }: IndexSpec, ref: IndexRef): boolean {
  return name === ref.name && fields.join('\0') === ref.fields.join('\0');
}

/** An index with all decryptable documents of its collection. */
export interface UsableIndex extends IndexRef {
  /** A document may have several entries, one for each combination of its values. */
  readonly isMultiple: boolean;
}

/** A range of an index by keys (`values/key.ts`): includes `low`, excludes `high`. */
export interface KeyRange {
  readonly low: string;
  readonly high: string;
}

/** The rest of some ranges behind a key. */
export function rangesBehind(ranges: readonly KeyRange[], key: string, backwards: boolean): KeyRange[] {
  return ranges
    .map(({ low, high }) =>
      backwards ? { low, high: earlierKey(high, key) } : { low: laterKey(low, `${key}\0`), high },
    )
    .filter(({ low, high }) => low < high);
}

/**
 * The entries of documents with too many keys for an index, which every search must also check. Their key
 * sorts before every key part.
 */
export const ALWAYS: KeyRange = { low: '\x00', high: '\x01' };

export interface IndexEntry {
  /** Key parts of the fields, or {@link ALWAYS}, followed by the creation position. */
  readonly key: string;
  readonly id: string;
}

/** Indexes of an engine. */
export interface EngineIndexes {
  /** Computes index keys before the commit is put in order, yielding in between. */
  prepare?(writes: readonly Write[], work: Work): Promise<void>;
  /**
   * Sets the indexes of a collection. Existing ones stay unchanged; new ones are built in the background. On
   * a shared storage, only {@link keep} makes the change effective.
   */
  define(collection: string, specs: readonly IndexSpec[], by: DefinedBy): void;

  /**
   * Makes the storage keep the defined indexes, and learns changes by other nodes. Call it after definitions
   * have changed, and about once a second.
   *
   * @throws AppError of the storage; the next call continues.
   */
  keep?(): Promise<void>;

  /** Counts changes to the set of indexes, where other processes also make them. */
  readonly version?: number;

  /** Absent or true: {@link keep} has nothing to do until something changes. */
  readonly isSettled?: boolean;

  status(collection: string): readonly IndexStatus[];

  usable(collection: string): readonly UsableIndex[];

  /** Resolves once no index is being built. */
  built(): Promise<void>;
}
