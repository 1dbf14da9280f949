import type { DocumentMetadata } from '@bundoc/shared/contract/documents';
import type { DocumentContent, DocumentRef } from '../crypto/stored-text.ts';
import type { Work } from '../work/scheduler.ts';
import type { EngineIndexes, FoundBy } from './index-port.ts';
import type { PreconditionsFailed } from './precondition.ts';
import type { SealCount } from './seal-budget.ts';
import type { IdempotencyRecord } from './state.ts';

/** What is there at once, or comes later. */
export type Awaitable<T> = T | Promise<T>;

/** A document as it is stored, opened. `text` is the JSON that the API returns, byte for byte. */
export interface StoredDocument {
  readonly metadata: DocumentMetadata;
  readonly text: Buffer;
}

/** What must hold for a write to happen, checked atomically with it. */
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
}

/** Makes a commit repeatable: the same key and request again gives the first answer and writes nothing. */
export interface Idempotency {
  /** Hash of who asks and the key that was given, 32 hex characters. */
  readonly key: string;
  /** Hash of the request, 32 hex characters. */
  readonly request: string;
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
  /** Sealed bytes after which the page ends, though one document is always in it. */
  readonly bytesMax: number;
  /** Only documents that a blind index finds, and those that it has no room for. */
  readonly found?: FoundBy | undefined;
  /** Long work that the list belongs to. */
  readonly work?: Work | undefined;
}

/** A document of a page. */
export interface ListedDocument extends StoredDocument {
  /** Of its creation: a page after it begins with the next document. */
  readonly position: Position;
}

export interface DocumentPage {
  /** In the order of their creation. */
  readonly documents: readonly ListedDocument[];
  /** Ids of documents of this page whose stored bytes do not open. */
  readonly unreadable: readonly string[];
  /** The others of them, whose ids do not open either, by what {@link ProjectStore.nameOf} calls them. */
  readonly unnamed?: readonly string[];
  /** Where the next page begins; undefined when this was the last. */
  readonly next: Position | undefined;
  /** Documents that were read for it and are absent, since they have expired, and bytes of them. */
  readonly skippedExpired?: { readonly documents: number; readonly bytes: number };
}

export interface Change {
  readonly ref: DocumentRef;
  readonly rev: string;
  readonly deleted: boolean;
  readonly position: Position;
}

export interface ChangePage {
  /** Each document once, at its last change, in the order of those. */
  readonly changes: readonly Change[];
  /** Where to go on from. */
  readonly position: Position;
  /**
   * Up to here it does not matter to who goes on from there that deletions are forgotten: they began after
   * it.
   */
  readonly horizon: Position;
}

/** A document or deletion as it is stored: what a backup holds of it. */
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
    /** When it was deleted; 0 while it lives. */
    readonly deletedMs: number;
  };
  /** The bytes of the document file; undefined for a deletion. */
  readonly sealed: Buffer | undefined;
}

export interface SealedPage {
  readonly changes: readonly SealedChange[];
  /** Where to go on from. */
  readonly position: Position;
  /**
   * True when nothing is missing of what was committed up to `position`, in this page and those before it.
   */
  readonly isComplete: boolean;
  /** Deletions up to here are forgotten. */
  readonly forgotten: Position;
}

/** How much of a project a page of {@link ProjectStore.sealedChanges} holds. */
export interface SealedPageLimits {
  readonly limit: number;
  /** Sealed bytes after which the page ends, though one change is always in it. */
  readonly bytesMax: number;
}

/** What a project has beside its documents and deletions, as of one moment. */
export interface StoreMetadata {
  readonly lastSeq: Position;
  /** Deletions up to here are forgotten. */
  readonly purgedSeq: Position;
  /** At least as many as were made. */
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
   * Refuses writes with `project_moving`, until it is disposed. Resolves once those that were under way are
   * done.
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
 * Bytes that the writes of one commit take together with what they bring along, and commits of one project
 * that may wait.
 */
export const COMMIT_BYTES_MAX = 33_554_432;
export const COMMITS_WAITING_MAX = 1_024;
/** How long a deletion stays in the list of changes, milliseconds. */
export const TOMBSTONE_TTL_MS = 7 * 86_400_000;
/**
 * How long an idempotency key is remembered, milliseconds, and how many at most; the oldest are forgotten
 * first.
 */
export const IDEMPOTENCY_TTL_MS = 86_400_000;
export const IDEMPOTENCY_KEYS_MAX = 100_000;
/** UTF-16 units of all answers that are remembered under idempotency keys: those of batches are long. */
export const IDEMPOTENCY_ANSWERS_MAX = 33_554_432;

/**
 * Storage of one project. Implementations pass `conformance.ts`.
 *
 * Every method may be called concurrently. Commits take effect one after another, each as a whole.
 *
 * Errors of every method: `storage_unavailable` when the storage fails (after a failed sync nothing more is
 * written until it is opened again), `integrity_error` when stored bytes do not open, `disk_full`.
 */
export interface ProjectStore extends AsyncDisposable {
  /**
   * Reads its own project's acknowledged writes; undefined for an absent document. Answers at once, by a
   * value or by throwing, where nothing needs to be read from a disk or a server.
   */
  get(ref: DocumentRef): Awaitable<StoredDocument | undefined>;

  /** The document, if {@link get} answers at once. `undefined` means unknown, not absent. */
  getSync?(ref: DocumentRef): StoredDocument | undefined;

  /**
   * Writes all of `writes` or none, in their order. Once resolved, they are durable; once rejected with
   * another code than `storage_unavailable`, nothing has changed.
   *
   * @returns a result for each write.
   * @throws AppError `precondition_failed`, as a {@link PreconditionsFailed} that lists every write whose
   * precondition does not hold, each judged by its document as the writes before the first of them leave it;
   * `document_not_found` for the delete of an absent document without a precondition; `idempotency_mismatch`
   * for a key that was used for another request; `overloaded` when too much is waiting; `payload_too_large`;
   * `quota_exceeded` for a commit that adds to a project which may hold no more; `unique_violation` when
   * another document has the same values in a unique index; `key_exhausted` when the key may seal no more.
   */
  commit(writes: readonly Write[], options?: CommitOptions): Promise<readonly WriteResult[]>;

  /**
   * A page of a collection's documents. A document that is made while pages are read appears behind them.
   *
   * @throws AppError `overloaded` when the index that it asks for is not there any more.
   */
  list(query: ListQuery): Promise<DocumentPage>;

  /** What a document is called where its id is not to be seen; of engines in which an id may not open. */
  nameOf?(ref: DocumentRef): string;

  /**
   * What changed behind a position, deletions of the last seven days included.
   *
   * @param horizon of the page that gave `after`; none at the beginning.
   * @throws AppError `position_gone` when deletions are forgotten that anyone who goes on from there has not
   * seen.
   */
  changes(after: Position, limit: number, horizon?: Position): Promise<ChangePage>;

  /** The position of the latest commit. A reader that starts there gets everything later. */
  position(): Promise<Position>;

  /**
   * Waits, without a deadline of its own, until {@link changes} has something behind `after`; at once if it
   * has already.
   *
   * It costs nothing but memory, and holds up nothing: it ends, too, when the signal is aborted and when the
   * store is closed.
   *
   * @returns the place of the latest commit, or undefined when it ended without one.
   * @throws AppError of the storage, where waiting needs it.
   */
  waitForChange(after: Position, signal: AbortSignal): Promise<Position | undefined>;

  /**
   * What changed behind a position, in that order, with the bytes that are stored; a document that has
   * changed again is left out, as it comes behind. So pages up to one that is complete are the whole project
   * as it was at its position.
   *
   * @throws AppError `integrity_error` for a document whose bytes do not open.
   */
  sealedChanges(after: Position, limits: SealedPageLimits): Promise<SealedPage>;

  /** Absent where other processes write, too: fences of one would not hold them. */
  readonly movable?: MovableStore | undefined;

  /** Collections that hold a document. */
  collections(): Promise<readonly CollectionSummary[]>;

  readonly indexes?: EngineIndexes | undefined;

  /** True when the opening has found that there are neither definitions of collections nor indexes. */
  readonly definesNothing?: boolean;

  /** Other processes write to the same storage. */
  readonly isShared?: boolean;

  /** Documents that are sealed under another version of the key than the current one. */
  readonly pendingReencryption: number;

  /**
   * Re-seals up to `limit` of them, without a change that anybody sees. Resumes where it was, also after a
   * crash. One that does not open is left as it is.
   *
   * @returns how many were re-sealed; 0 once all have been looked at.
   */
  reseal(limit: number): Promise<number>;

  /**
   * Bytes of memory that it takes for what the project holds, as an estimate: asked for after each commit.
   */
  readonly memoryBytes?: number;

  /**
   * Makes everything durable in the project's own place, so that its opening needs nothing else. Needs the
   * key, as everything but closing does.
   */
  checkpoint(): Promise<void>;

  /** What is worth doing before it is closed, while its key may be used. */
  prepareClose?(): Promise<void>;

  /** True once a failed sync has left it unknown what is durable: the store must be opened again. */
  readonly failed: boolean;

  /**
   * Waits for running commits and closes; waits for a change end at once. Nothing may be
   * called afterwards. Needs no key.
   */
  [Symbol.asyncDispose](): Promise<void>;
}
