import assert from 'node:assert/strict';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { Work } from '../../work/work.ts';
import type { IndexEntry, KeyRange, UsableIndex } from './index-port.ts';
import type { Awaitable, DocumentPage, ListQuery, Position, ProjectStore, StoredDocument } from './port.ts';

/** A place that a reader holds and others need. Leaving it has no effect a second time. */
export interface ReadPlace {
  leave(): void;
  /** Waits for a place again. @throws AppError `rate_limited`, `overloaded`. */
  retake(): Promise<void>;
}

export interface SnapshotOptions {
  /** The state to show, which an earlier snapshot of the collection had. The present one by default. */
  readonly asOf?: Position | undefined;
  /** The time by which documents count as expired, milliseconds since 1970. The present by default. */
  readonly expiryAtMs?: number | undefined;
  /** Left while the snapshot waits for a connection, so that others can read meanwhile. */
  readonly place?: ReadPlace | undefined;
}

/** A query of a snapshot's documents, which are those of its collection. */
export type SnapshotListQuery = Omit<ListQuery, 'collection'>;

/** A search in ranges of an index. */
export interface IndexSearch {
  /** As {@link StoreSnapshot.usable} described it. */
  readonly index: UsableIndex;
  /** In key order, without overlaps. */
  readonly ranges: readonly KeyRange[];
  /** From the end of the last range to the start of the first. */
  readonly backwards: boolean;
  readonly limit: number;
  /** Sealed bytes after which a page ends, if it has documents. It has at least one. */
  readonly bytesMax: number;
  /** Long work that the search belongs to. */
  readonly work?: Work | undefined;
}

/**
 * An entry, with its document if the search reads documents. Then all entries have theirs, and the page is
 * awaited.
 */
export interface FoundEntry extends IndexEntry {
  readonly document?: StoredDocument;
}

/** Entries of ranges of an index, in the order of the search. */
export interface IndexPage {
  readonly entries: readonly FoundEntry[];
  /** Ids of documents that the search has read, and whose stored bytes do not open. */
  readonly unreadable?: readonly string[];
  /** Entries whose documents the search has read, and which have changed since. */
  readonly outOfDate?: number;
  /** Expired documents that the search has read and left out, and their bytes. */
  readonly skippedExpired?: DocumentPage['skippedExpired'];
  /**
   * The last key that was visited, after which the search continues; it may be of no entry. Undefined at the
   * end of the last range.
   */
  readonly last: string | undefined;
}

/**
 * One collection as of one commit. It shows every commit up to `asOf` completely, and no later one, until it
 * is disposed of. No write waits for it.
 *
 * Every method throws AppError `snapshot_too_old` when the state is no longer kept: too much was written
 * meanwhile, or the store was closed. Never does it mix two states. A second read may throw
 * {@link StateMoved}.
 */
export interface StoreSnapshot extends Disposable {
  /** The position of the last commit that it shows. Undefined before the first read, which determines it. */
  readonly asOf: Position | undefined;

  /** As in {@link SnapshotOptions}. Undefined when its documents do not expire. */
  readonly expiryAtMs?: number;

  /** As {@link ProjectStore.list}. */
  list(query: SnapshotListQuery): Promise<DocumentPage>;

  /** As {@link ProjectStore.get}, for a document of the collection. */
  get(id: string): Awaitable<StoredDocument | undefined>;

  /** As {@link ProjectStore.getSync}, for a document of the collection. */
  getSync?(id: string): StoredDocument | undefined;

  /** The number of documents in the collection. Expired ones count until they are removed. */
  total(): Awaitable<number>;

  /** Indexes that have every decryptable document of this state. */
  usable(): Awaitable<readonly UsableIndex[]>;

  /**
   * At most `limit` entries of ranges, from their start or backwards from their end. Undefined for an index
   * that is not usable.
   *
   * @throws StateMoved when a document has several entries, or too many, contrary to `isMultiple` of the
   *   index. The plan was made for one entry of each document.
   */
  search(query: IndexSearch): Awaitable<IndexPage | undefined>;

  /**
   * The number of entries in ranges, each of which counts once. Undefined when only reading the documents can
   * tell.
   *
   * @throws StateMoved as {@link search} does.
   */
  count?(query: Pick<IndexSearch, 'index' | 'ranges' | 'work'>): Awaitable<number | undefined>;

  /** Its part of the memory that superseded documents take, bytes. It grows with the writes of others. */
  readonly keptBytes: number;

  /** Keeps the state for later pages once this snapshot is disposed of, for a while. */
  retain?(): void;
}

/** The refusal of an answer whose state is gone. */
export function snapshotTooOld(): AppError {
  return new AppError('snapshot_too_old', { retryAfterS: 1 });
}

/**
 * The state of the first read is gone, and the snapshot shows a later one from now on; or an index is not as
 * it was described. The answer must begin again.
 */
export class StateMoved extends Error {
  override readonly name = 'StateMoved';
}

/** How often an answer begins again: once for a moved state, once for an index that has changed. */
const MOVES_MAX = 2;

/** Makes an answer from one snapshot, again if its state moves. `make` also chooses the indexes again. */
export async function ofOneState<T>(make: () => Promise<T>): Promise<T> {
  for (let moves = 0; ; moves++)
    try {
      return await make();
    } catch (error) {
      if (!(error instanceof StateMoved) || moves === MOVES_MAX) throw error;
    }
}

/** The position of a snapshot that was read. */
export function shownPosition({ asOf }: StoreSnapshot): Position {
  assert(asOf !== undefined, 'the snapshot was not read');
  return asOf;
}

/** The refusal of a position that no commit of the project has reached. */
export function beyondLastCommit(): AppError {
  return new AppError('invalid_request', { detail: 'as_of: no commit of the project has this position yet' });
}
