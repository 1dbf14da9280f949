import { type AuditReceipt, auditReceiptSchema } from '@bundoc/shared/contract/keys';
import { InvalidArgumentError } from 'commander';
import type { z } from 'zod';

/** `42:9f3a…` → adds a receipt from an export or `audit head`. */
export function collectReceipt(text: string, earlier: readonly AuditReceipt[]): AuditReceipt[] {
  const [seq, hash] = text.split(':');
  const receipt = auditReceiptSchema.safeParse({ seq: Number(seq), hash });
  if (!receipt.success) throw new InvalidArgumentError('give seq:hash, as in the answer of an export');
  return [...earlier, receipt.data];
}

/** For lists with commas, with repeated options, or both. */
export function collect(text: string, earlier: readonly string[]): string[] {
  return [...earlier, ...text.split(',').filter((word) => word !== '')];
}

/** A parser from a schema. */
export function parserOf<S extends z.ZodType>(schema: S): (text: string) => z.infer<S> {
  return (text) => {
    const result = schema.safeParse(text);
    if (!result.success) throw new InvalidArgumentError(String(result.error.issues[0]?.message));
    return result.data;
  };
}

export function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const count = Number(text);
    if (!/^\d{1,15}$/.test(text) || count < min || count > max)
      throw new InvalidArgumentError(`give a whole number from ${min} to ${max}`);
    return count;
  };
}
