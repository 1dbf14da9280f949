import type { AuditRecord } from '@bundoc/shared/contract/audit';

/** A record as it is copied: what names the format, then the record (`docs/formats/shipped-audit.md`). */
export function lineOf(record: AuditRecord): string {
  const { seq, prev_hash: previousHash, hash, ...rest } = record;
  return `${JSON.stringify({ format: 'bunkms/audit/v1', seq, ...rest, prev_hash: previousHash, hash })}\n`;
}
