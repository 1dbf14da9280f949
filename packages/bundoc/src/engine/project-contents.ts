import type { SealCount } from './seal-budget.ts';
import type { DocumentState, IdempotencyRecord } from './state.ts';

/** A document with its stored bytes, or a tombstone with undefined. */
export interface StoredEntry {
  readonly state: DocumentState;
  readonly sealed: Buffer | undefined;
}

/** A project without its file, in one snapshot: everything that another storage needs to continue. */
export interface ProjectContents {
  readonly lastSeq: number;
  readonly purgedSeq: number;
  readonly seals: readonly SealCount[];
  readonly idempotencyRecords: readonly IdempotencyRecord[];
  /** Number of documents and tombstones. */
  readonly size: number;
  /** Unordered. */
  entries(): AsyncIterable<StoredEntry>;
}
