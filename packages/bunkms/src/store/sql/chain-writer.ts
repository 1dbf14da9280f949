import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { AuditDraft } from '../../records/chain.ts';

/**
 * The audit chain inside a write: nobody else appends to it, nor changes what it tells of, until the write
 * ends.
 */
export interface ChainWriter {
  /** The key of the chain. */
  readonly chainKey: KeyObject;
  /** Appends to the chain. The record is there for whatever is asked next. */
  append(draft: AuditDraft): AuditReceipt;
  /** Takes in a record as it is, behind all that are there. */
  take(record: AuditRecord): void;
  /** Gives the key of the chain to a write that has none: the chain begins in it. */
  unlock(chainKey: KeyObject): void;
}
