import { type AuditReceipt, auditReceiptSchema } from '@bundoc/shared/contract/keys';
import { InvalidArgumentError } from 'commander';

/** `42:9f3a…` → one more receipt, as an export or `audit head` gave it. */
export function collectReceipt(text: string, earlier: readonly AuditReceipt[]): AuditReceipt[] {
  const [seq, hash] = text.split(':');
  const receipt = auditReceiptSchema.safeParse({ seq: Number(seq), hash });
  if (!receipt.success) throw new InvalidArgumentError('give seq:hash, as an export answered them');
  return [...earlier, receipt.data];
}

/** For lists that are given with commas, by repeating the option, or both. */
export function collect(text: string, earlier: readonly string[]): string[] {
  return [...earlier, ...text.split(',').filter((word) => word !== '')];
}
