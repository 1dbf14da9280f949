import type { KeyObject } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import type { AuditVerification, VerifyAudit } from '@bundoc/shared/contract/audit';
import { faultOf, GENESIS } from '../records/chain.ts';
import type { AuditStore } from '../store/audit.ts';

/** Records that are read and hashed before other requests get their turn. */
const STEP = 250;

/**
 * Verifies a bounded part of the audit chain: the records behind `after`, which must follow it. The caller
 * continues with the `head` of the answer until it says `complete`, so a whole chain of any length is
 * verified in slices. A made-up `after` proves nothing to its maker: no record follows it.
 */
export async function verifySlice(
  { store, chainKey }: { readonly store: Pick<AuditStore, 'listAudit'>; readonly chainKey: KeyObject },
  { after = GENESIS, receipt, limit }: VerifyAudit,
): Promise<AuditVerification> {
  const receipts = receipt === undefined ? [] : [receipt];
  let head = after;
  let checked = 0;
  const faulty = (fault: Extract<AuditVerification, { intact: false }>['fault']): AuditVerification => ({
    intact: false,
    checked,
    fault,
  });
  for (let more = true; more && checked < limit; ) {
    const page = await store.listAudit({ after: head.seq, limit: Math.min(STEP, limit - checked) });
    for (const record of page.items) {
      const fault = faultOf(
        chainKey,
        head,
        record,
        receipts.filter(({ seq }) => seq === head.seq + 1),
      );
      if (fault !== undefined) return faulty(fault);
      head = { seq: record.seq, hash: record.hash };
      checked++;
    }
    more = page.more;
    if (more) await setImmediate();
    else if (head.seq < Math.max(1, receipt?.seq ?? 0))
      return faulty({ seq: head.seq + 1, reason: 'missing' });
    else return { intact: true, checked, head, complete: true };
  }
  return { intact: true, checked, head, complete: false };
}
