import { createHmac, type KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';

/** A record before it gets its place in the chain. */
export type AuditDraft = Omit<AuditRecord, 'seq' | 'prev_hash' | 'hash'>;

/** A place in a chain: its end, or its beginning before the first record. */
export interface ChainHead {
  readonly seq: number;
  readonly hash: string;
}

/** The head of an empty chain. */
export const GENESIS: ChainHead = { seq: 0, hash: '0'.repeat(64) };

/**
 * The bytes of a record that its hash covers (`docs/formats/audit-chain.md`): a JSON array of its fields in a
 * fixed order. An absent field is `null`, and `detail` is a list of name and value pairs, ordered by name. In
 * JSON no field can be mistaken for its neighbour.
 */
export function canonicalBytes(seq: number, draft: AuditDraft): Buffer {
  const detail =
    draft.detail === undefined
      ? null
      : Object.entries(draft.detail).sort(([one], [other]) => (one < other ? -1 : one > other ? 1 : 0));
  const fields = [
    'bunkms/audit/v1',
    seq,
    draft.time,
    draft.severity,
    draft.action,
    draft.outcome,
    draft.actor ?? null,
    draft.jti ?? null,
    draft.key ?? null,
    draft.version ?? null,
    draft.source ?? null,
    draft.request_id ?? null,
    draft.code ?? null,
    detail,
  ];
  return Buffer.from(JSON.stringify(fields), 'utf8');
}

/** Hash of a record in hex: `HMAC-SHA256(chainKey, previous hash (32 bytes) | canonical bytes)`. */
export function recordHash(
  chainKey: KeyObject,
  previousHash: string,
  seq: number,
  draft: AuditDraft,
): string {
  return createHmac('sha256', chainKey)
    .update(Buffer.from(previousHash, 'hex'))
    .update(canonicalBytes(seq, draft))
    .digest('hex');
}

/** The record that follows `head`. */
export function nextRecord(chainKey: KeyObject, head: ChainHead, draft: AuditDraft): AuditRecord {
  const seq = head.seq + 1;
  return { ...draft, seq, prev_hash: head.hash, hash: recordHash(chainKey, head.hash, seq, draft) };
}

/** The place and the kind of a fault in a chain. */
export interface ChainFault {
  /** The first record that was changed or is missing. */
  readonly seq: number;
  readonly reason:
    | 'missing'
    | 'before the first record'
    | 'does not follow the record before it'
    | 'changed'
    | 'not the record of the receipt';
}

export type ChainVerdict =
  | {
      readonly intact: true;
      readonly head: ChainHead;
      /** The records of the receipts, in the order of the chain. */
      readonly receipts: readonly AuditRecord[];
    }
  | { readonly intact: false; readonly fault: ChainFault };

/**
 * Verifies a chain from its first record, and stops at the first fault.
 *
 * A chain alone cannot show that its last records were cut off. So callers with receipts of records (every
 * export returns one) pass them, and the chain must contain exactly those records.
 *
 * @param records all records in ascending order of `seq`; errors of reading them are rethrown.
 */
export async function verifyChain(
  chainKey: KeyObject,
  records: AsyncIterable<AuditRecord> | Iterable<AuditRecord>,
  receipts: readonly AuditReceipt[] = [],
): Promise<ChainVerdict> {
  const receiptsBySeq = Map.groupBy(receipts, ({ seq }) => seq);
  // The first record is created together with the chain key, so an empty chain was emptied.
  let leastSeq = 1;
  for (const { seq } of receipts) leastSeq = Math.max(leastSeq, seq);
  let head = GENESIS;
  const found: AuditRecord[] = [];
  for await (const record of records) {
    const fault = faultOf(chainKey, head, record, receiptsBySeq.get(head.seq + 1) ?? []);
    if (fault !== undefined) return { intact: false, fault };
    head = { seq: record.seq, hash: record.hash };
    if (receiptsBySeq.has(record.seq)) found.push(record);
  }
  if (head.seq < leastSeq) return { intact: false, fault: { seq: head.seq + 1, reason: 'missing' } };
  return { intact: true, head, receipts: found };
}

/** The fault of the record that should follow `head`; undefined when it has none. */
export function faultOf(
  chainKey: KeyObject,
  head: ChainHead,
  record: AuditRecord,
  receipts: readonly AuditReceipt[] = [],
): ChainFault | undefined {
  const seq = head.seq + 1;
  if (record.seq <= GENESIS.seq) return { seq: record.seq, reason: 'before the first record' };
  if (record.seq !== seq) return { seq, reason: 'missing' };
  if (record.prev_hash !== head.hash) return { seq, reason: 'does not follow the record before it' };
  if (recordHash(chainKey, head.hash, seq, record) !== record.hash) return { seq, reason: 'changed' };
  if (receipts.some(({ hash }) => hash !== record.hash))
    return { seq, reason: 'not the record of the receipt' };
  return undefined;
}
