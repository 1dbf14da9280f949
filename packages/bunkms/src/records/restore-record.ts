import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { Caller } from './caller.ts';
import type { AuditDraft } from './chain.ts';

/** The action of a record that ends earlier receipts: records from before it may be lost. */
export const CHAIN_RESTORED = 'chain.restored';

/**
 * The record of a restore, or of an accepted loss. Its epoch is later than every earlier one, so receipts of
 * what was lost are older than the chain.
 *
 * @param earlier the epochs of the restores in the chain.
 */
export function restoreDraft(
  caller: Caller,
  now: number,
  earlier: readonly number[],
  detail: NonNullable<AuditDraft['detail']>,
): AuditDraft {
  return {
    ...caller,
    time: new Date(now).toISOString(),
    severity: 'CRITICAL',
    action: CHAIN_RESTORED,
    outcome: 'allowed',
    detail: { epoch: Math.max(now, ...earlier.map((epoch) => epoch + 1)), ...detail },
  };
}

/** The epoch of a record that restores the chain, milliseconds; 0 for any other record. Not authenticated. */
export function epochOf(record: AuditRecord | undefined): number {
  if (record?.action !== CHAIN_RESTORED) return 0;
  const epoch = Number(record.detail?.['epoch']);
  return Number.isSafeInteger(epoch) ? epoch : 0;
}
