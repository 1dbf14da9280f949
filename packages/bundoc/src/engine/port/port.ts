import type { DocumentMetadata } from '@bundoc/shared/contract/documents';
import type { DocumentContent, DocumentRef } from '../../crypto/stored-text.ts';
import type { Work } from '../../work/work.ts';
import type { EngineIndexes } from './index-port.ts';
import type { PreconditionsFailed } from './precondition.ts';
import type { SealCount } from './seal-budget.ts';
import type { SnapshotOptions, StoreSnapshot } from './snapshot-port.ts';
import type { IdempotencyRecord } from './state.ts';

/** A value that is available at once, or a promise of it. */
export type Awaitable<T> = T | Promise<T>;

/** A document as it is stored, opened. `text` is the JSON that the API returns, byte for byte. */
export interface StoredDocument {
  readonly metadata: DocumentMetadata;
  readonly text: Buffer;
}

/** A condition of a write, checked atomically with it. */
export type Precondition =
  | { readonly kind: 'none' }
  | { readonly kind: 'absent' }
  | { readonly kind: 'present' }
  | { readonly kind: 'revision'; readonly anyOf: readonly string[] };

export type Write =
  | {
      readonly kind: 'put';
      readonly ref: DocumentRef;
      readonly content: DocumentContent;
      readonly precondition: Precondition;
    }
  | { readonly kind: 'delete'; readonly ref: DocumentRef; readonly precondition: Precondition };

export interface WriteResult {
  /** True when the document did not exist before. */
  readonly created: boolean;
  /** The document's metadata after a put; undefined after a delete. */
  readonly metadata: DocumentMetadata | undefined;
  /** Of the first commit, in the only result of a repetition: see {@link Idempotency.note}. */
  readonly note?: string;
}

/** Makes a commit repeatable: the same key and request get the first answer again and write nothing. */
export interface Idempotency {
  /** Hash of the caller and the given key, 32 hex characters. */
  readonly key: string;
  /** Hash of the request, 32 hex characters. */
  readonly request: string;
  /**
   * Kept instead of the results, which may be long: a repetition gets one result with this note. Then the
   * commit may have no writes.
   */
  readonly note?: string;
}

export interface CommitOptions {
  readonly idempotency?: Idempotency;
  /** Long work that the commit belongs to, while it is prepared. */
  readonly work?: Work | undefined;
}

/** A commit that waits for its turn in a store. */
export interface WaitingCommit {
  readonly writes: readonly Write[];
  readonly options: CommitOptions;
  /** As {@link COMMIT_BYTES_MAX} counts them. */
  readonly bytes: number;
  readonly done: PromiseWithResolvers<readonly WriteResult[]>;
}

/** A place in a project's commit sequence; 0 is before everything. */
export type Position = number;

export interface ListQuery {
  readonly collection: string;
  /** The `position` of the last page; 0 for the first. */
  readonly after: Position;
  readonly limit: number;
  /** Sealed bytes after which the page ends. A page has at least one document. */
  readonly bytesMax: number;
  /** Long work that the list belongs to. */
  readonly work?: Work | undefined;
}

/** A document of a page. */
export interface ListedDocument extends StoredDocument {
  /** Of its creation. The page after this position begins with the next document. */
  readonly position: Position;
}

export interface DocumentPage {
  /** In the order of their creation. */
  readonly documents: readonly ListedDocument[];
  /** Ids of documents of this page whose stored bytes do not open. */
  readonly unreadable: readonly string[];
  /** Such documents whose ids do not open either, by the names of {@link ProjectStore.nameOf}. */
  readonly unnamed?: readonly string[];
  /** Where the next page begins; undefined when this was the last. */
  readonly next: Position | undefined;
  /** Expired documents that were read for the page and left out, and their bytes. */
  readonly skippedExpired?: { readonly documents: number; readonly bytes: number };
}

export interface Change {
  readonly ref: DocumentRef;
  readonly rev: string;
  readonly deleted: boolean;
  readonly position: Position;
}

export interface ChangePage {
  /** Each document once, at its latest change, in the order of the changes. */
  readonly changes: readonly Change[];
  /** The position from which the next page continues. */
  readonly position: Position;
  /**
   * A reader that continues from this page began after all deletions up to here. It may continue even if they
   * are forgotten.
   */
  readonly horizon: Position;
}

/** A document or deletion as it is stored, and as a backup holds it. */
export interface SealedChange {
  readonly state: {
    readonly collection: string;
    readonly id: string;
    /** 16 bytes. */
    readonly fileName: Buffer;
    readonly seq: Position;
    /** Of the creation; orders lists. */
    readonly createdSeq: Position;
    readonly createdMs: number;
    /** 12 bytes. */
    readonly rev: Buffer;
    readonly keyVersion: number;
    /** Bytes of the sealed document. */
    readonly size: number;
    /** When it was deleted; 0 if it exists. */
    readonly deletedMs: number;
  };
  /** The bytes of the document file; undefined for a deletion. */
  readonly sealed: Buffer | undefined;
}

export interface SealedPage {
  readonly changes: readonly SealedChange[];
  /** The position from which the next page continues. */
  readonly position: Position;
  /**
   * True when this page and those before it have everything that was committed up to `position`.
   */
  readonly isComplete: boolean;
  /** Deletions up to here are forgotten. */
  readonly forgotten: Position;
}

/** How much of a project a page of {@link ProjectStore.sealedChanges} holds. */
export interface SealedPageLimits {
  readonly limit: number;
  /** Sealed bytes after which the page ends. A page has at least one change. */
  readonly bytesMax: number;
}

/** The data of a project beside its documents and deletions, as of one moment. */
export interface StoreMetadata {
  readonly lastSeq: Position;
  /** Deletions up to here are forgotten. */
  readonly purgedSeq: Position;
  /** At least as many seals as were made. */
  readonly seals: readonly SealCount[];
  readonly idempotencyRecords: readonly IdempotencyRecord[];
  /** Documents and deletions. */
  readonly size: number;
  readonly documents: number;
  /** Sealed bytes of the documents. */
  readonly bytes: number;
}

/** A store whose project can be moved away while it is in use. */
export interface MovableStore {
  metadata(): Promise<StoreMetadata>;
  /**
   * Refuses writes with `project_moving` until it is disposed. Resolves when the writes in progress are done.
   */
  fence(): Promise<Disposable>;
}

export interface CollectionSummary {
  readonly name: string;
  readonly documents: number;
  /** Sealed bytes. */
  readonly bytes: number;
}

/**
 * The largest commit in bytes, with everything that its writes add, and how many commits of a project may
 * wait.
 */
export const COMMIT_BYTES_MAX = 33_554_432;
export const COMMITS_WAITING_MAX = 1_024;
/**
 * How long a deletion stays in the list of changes, in milliseconds, and how many of a project at most: more
 * are kept until the next checkpoint or upkeep. The oldest are forgotten first.
 */
export const TOMBSTONE_TTL_MS = 7 * 86_400_000;
export const TOMBSTONES_MAX = 100_000;
/**
 * How long an idempotency key is remembered, in milliseconds, and how many at most. The oldest are forgotten
 * first.
 */
export const IDEMPOTENCY_TTL_MS = 86_400_000;
export const IDEMPOTENCY_KEYS_MAX = 100_000;
/** UTF-16 units of all answers that are remembered under idempotency keys: those of batches are long. */
export const IDEMPOTENCY_ANSWERS_MAX = 33_554_432;

/** The outcome of a step of re-sealing. */
export interface Resealed {
  /** Documents that this step moved to the current version of the key. */
  readonly resealed: number;
  /** Documents that this step could not read. */
  readonly skipped: number;
  /** Why the first of them could not be read. */
  readonly cause?: unknown;
  /** Whether the next step continues at once: not all documents were visited yet. */
  readonly goesOn: boolean;
}

/**
 * Storage of one project. Implementations pass `conformance.ts`.
 *
 * Methods may be called concurrently. Commits take effect one after another, each completely.
 *
 * Errors of every method: `storage_unavailable` when the storage fails, `integrity_error` when stored bytes
 * do not open, `disk_full`. After a failed sync, the store writes nothing more until it is opened again.
 */
export interface ProjectStore extends AsyncDisposable {
  /**
   * Returns a document with every acknowledged write; undefined if it is absent. Returns or throws at once if
   * nothing needs to be read from a disk or a server.
   */
  get(ref: DocumentRef): Awaitable<StoredDocument | undefined>;

  /** The document, if {@link get} answers at once. `undefined` means unknown, not absent. */
  getSync?(ref: DocumentRef): StoredDocument | undefined;

  /**
   * Writes all of `writes` or none, in their order. When it resolves, they are durable. When it rejects with
   * another code than `storage_unavailable`, nothing has changed.
   *
   * @returns a result for each write.
   * @throws AppError `precondition_failed`, as a {@link PreconditionsFailed} that lists every write whose
   * precondition does not hold, each judged by its document as the writes before the first of them leave it;
   * `document_not_found` for the delete of an absent document without a precondition; `idempotency_mismatch`
   * for a key that was used for another request; `overloaded` when too much is waiting; `payload_too_large`;
   * `quota_exceeded` for a commit that would exceed the project's quota; `unique_violation` when another
   * document has the same values in a unique index; `key_exhausted` when the key has no seals left.
   */
  commit(writes: readonly Write[], options?: CommitOptions): Promise<readonly WriteResult[]>;

  /**
   * A page of a collection's documents. A document that is created while pages are read appears after them.
   *
   * @throws AppError `overloaded` when the requested index no longer exists.
   */
  list(query: ListQuery): Promise<DocumentPage>;

  /**
   * A collection as of one commit: the last one, or that of `asOf`. It has every commit that was acknowledged
   * before.
   *
   * @throws AppError `snapshot_too_old` when the state of `asOf` is no longer kept and the collection has
   *   changed since; `invalid_request` for a position after the last commit.
   */
  snapshot(collection: string, options?: SnapshotOptions): Awaitable<StoreSnapshot>;

  /** The opaque name of a document, which shows no id. Only of engines in which an id may not open. */
  nameOf?(ref: DocumentRef): string;

  /**
   * The changes after a position, including deletions of the last seven days.
   *
   * @param horizon of the page that gave `after`; none at the beginning.
   * @throws AppError `position_gone` when a deletion is forgotten that a reader at this position needs.
   */
  changes(after: Position, limit: number, horizon?: Position): Promise<ChangePage>;

  /** The position of the latest commit. A reader that starts there gets everything later. */
  position(): Promise<Position>;

  /**
   * Waits, without a deadline, until {@link changes} has a change after `after`. Returns at once if it does.
   *
   * It costs only memory and delays nothing else. It also ends when the signal is aborted or the store is
   * closed.
   *
   * @returns the place of the latest commit, or undefined when it ended without one.
   * @throws AppError of the storage, if waiting uses it.
   */
  waitForChange(after: Position, signal: AbortSignal): Promise<Position | undefined>;

  /**
   * The changes after a position, in their order, with the stored bytes. A document that changed again
   * appears only at its later position. So all pages up to a complete one are the whole project as of its
   * position.
   *
   * @throws AppError `integrity_error` for a document whose bytes do not open.
   */
  sealedChanges(after: Position, limits: SealedPageLimits): Promise<SealedPage>;

  /** Absent if other processes also write: the fence of one process would not stop them. */
  readonly movable?: MovableStore | undefined;

  /** Collections that hold a document. */
  collections(): Promise<readonly CollectionSummary[]>;

  readonly indexes?: EngineIndexes | undefined;

  /** True when the opening found neither definitions of collections nor indexes. */
  readonly definesNothing?: boolean;

  /** Other processes write to the same storage. */
  readonly isShared?: boolean;

  /** Documents that are sealed under another version of the key than the current one. */
  readonly pendingReencryption: number;

  /**
   * Re-seals up to `limit` of them, without a visible change. Continues where it stopped, even after a crash.
   * It skips an unreadable document and tries it again later. Until then, the document counts as pending.
   */
  reseal(limit: number): Promise<Resealed>;

  /**
   * Estimated bytes of memory that the store uses for the project. Read after each commit.
   */
  readonly memoryBytes?: number;

  /**
   * Makes everything durable in the project's own place, so that opening it needs nothing else. Needs the
   * key, as do all methods except closing.
   */
  checkpoint(): Promise<void>;

  /** Optional work before closing, while the key may still be used. */
  prepareClose?(): Promise<void>;

  /** True after a failed sync, when it is unknown what is durable. The store must be opened again. */
  readonly failed: boolean;

  /**
   * Waits for running commits and closes. Pending waits for a change end at once. No method may be called
   * afterwards. Needs no key.
   */
  [Symbol.asyncDispose](): Promise<void>;
}
