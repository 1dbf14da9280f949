import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { AuditDraft } from '../../records/chain.ts';

/**
 * The audit chain inside a write. Until the write ends, nobody else appends to it or changes its subjects.
 */
export interface ChainWriter {
  /** The key of the chain. */
  readonly chainKey: KeyObject;
  /** Appends to the chain. Later statements see the record. */
  append(draft: AuditDraft): AuditReceipt;
  /** Appends an existing record unchanged. */
  take(record: AuditRecord): void;
  /** Sets the chain key for a write that begins the chain. */
  unlock(chainKey: KeyObject): void;
}
