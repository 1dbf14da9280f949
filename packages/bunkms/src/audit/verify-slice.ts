import type { KeyObject } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import type { AuditVerification, VerifyAudit } from '@bundoc/shared/contract/audit';
import { faultOf, GENESIS } from '../records/chain.ts';
import type { AuditStore } from '../store/audit.ts';

type ChainFault = Extract<AuditVerification, { intact: false }>['fault'];

/** Records to read and hash before yielding to other requests. */
const STEP = 250;

/**
 * Verifies a bounded part of the audit chain: the records after `after`, which must follow it. The caller
 * continues with the `head` of the answer until it is `complete`. So a chain of any length is verified in
 * slices. A made-up `after` gains nothing: no record follows it, and a chain that ends before it counts as
 * truncated.
 */
export async function verifySlice(
  { store, chainKey }: { readonly store: Pick<AuditStore, 'listAudit'>; readonly chainKey: KeyObject },
  { after = GENESIS, receipt, limit }: VerifyAudit,
): Promise<AuditVerification> {
  const receipts = receipt === undefined ? [] : [receipt];
  let head = after;
  let checked = 0;
  const faulty = (fault: ChainFault): AuditVerification => ({
    intact: false,
    checked,
    fault,
  });
  if (receipt !== undefined && receipt.seq <= after.seq) {
    const fault = await faultAt(store, receipt);
    if (fault !== undefined) return faulty(fault);
  }
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
    else {
      const fault = checked === 0 ? await faultAt(store, head) : undefined;
      return fault === undefined ? { intact: true, checked, head, complete: true } : faulty(fault);
    }
  }
  return { intact: true, checked, head, complete: false };
}

/** The fault when the chain lacks exactly this record. Its content was verified when its hash was issued. */
async function faultAt(
  store: Pick<AuditStore, 'listAudit'>,
  { seq, hash }: { readonly seq: number; readonly hash: string },
): Promise<ChainFault | undefined> {
  const [record] = (await store.listAudit({ after: seq - 1, limit: 1 })).items;
  if (record?.seq !== seq) return { seq, reason: 'missing' };
  return record.hash === hash ? undefined : { seq, reason: 'not the record of the receipt' };
}
