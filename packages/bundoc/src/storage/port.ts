import type { DocumentMetadata } from '@bundoc/shared/contract/documents';
import type { DocumentContent, DocumentRef } from '../cipher/stored-text.ts';

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

export interface CommitResult {
  /** True when the document did not exist before. */
  readonly created: boolean;
  /** The document's metadata after a put; undefined after a delete. */
  readonly metadata: DocumentMetadata | undefined;
}

/**
 * Storage of one project. Implementations pass `storage/conformance.ts`.
 *
 * Every method may be called concurrently. Writes to one document take effect one after another.
 *
 * Errors of every method: `storage_unavailable` when the storage fails (after a failed sync nothing more is written
 * or read until it is opened again), `integrity_error` when stored bytes do not open, `disk_full`.
 */
export interface ProjectStore extends AsyncDisposable {
  /** Reads its own project's acknowledged writes. Absent: undefined. */
  get(ref: DocumentRef): Promise<StoredDocument | undefined>;

  /**
   * Writes one document. Once resolved, the write is durable; once rejected with another code than
   * `storage_unavailable`, nothing has changed.
   *
   * @throws AppError `precondition_failed`; `document_not_found` for the delete of an absent document without a
   * precondition; `overloaded` when too many writes are waiting.
   */
  commit(write: Write): Promise<CommitResult>;

  /** True once a failed sync has left it unknown what is durable: the store must be opened anew. */
  readonly failed: boolean;

  /** Waits for running writes. Nothing may be called afterwards. */
  [Symbol.asyncDispose](): Promise<void>;
}
