import type { SealCount } from './seal-budget.ts';
import type { DocumentState, IdempotencyRecord } from './state.ts';

/** A document or tombstone, and its bytes as they are stored; undefined for a tombstone. */
export interface StoredEntry {
  readonly state: DocumentState;
  readonly sealed: Buffer | undefined;
}

/**
 * All that a storage has of a project beside its file, as of one moment: what another storage must have to go
 * on from there.
 */
export interface ProjectContents {
  readonly lastSeq: number;
  readonly purgedSeq: number;
  readonly seals: readonly SealCount[];
  readonly idempotencyRecords: readonly IdempotencyRecord[];
  /** Documents and tombstones. */
  readonly size: number;
  /** In no order. */
  entries(): AsyncIterable<StoredEntry>;
}
