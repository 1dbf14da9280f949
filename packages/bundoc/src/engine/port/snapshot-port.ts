import assert from 'node:assert/strict';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { IndexEntry, IndexRef, KeyRange, UsableIndex } from './index-port.ts';
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

/** Entries of a range of an index, in the order of the search. */
export interface IndexPage {
  readonly entries: readonly IndexEntry[];
  /**
   * The last key that was visited, after which the search continues; it may be of no entry. Undefined at the
   * end of the range.
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
  usable(): readonly UsableIndex[];

  /**
   * At most `limit` entries of a range, from its start or backwards from its end. Undefined for an index that
   * is not usable.
   */
  search?(index: IndexRef, range: KeyRange, backwards: boolean, limit: number): IndexPage | undefined;

  /** Documents with too many keys for an index, which every search must also check. */
  always?(index: IndexRef): readonly IndexEntry[] | undefined;

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
 * The state of the first read is gone, and the snapshot shows a later one from now on. The answer must begin
 * again.
 */
export class StateMoved extends Error {
  override readonly name = 'StateMoved';
}

/** Makes an answer from one snapshot, a second time if its state moves after the first read. */
export async function ofOneState<T>(make: () => Promise<T>): Promise<T> {
  try {
    return await make();
  } catch (error) {
    if (!(error instanceof StateMoved)) throw error;
  }
  return await make();
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
