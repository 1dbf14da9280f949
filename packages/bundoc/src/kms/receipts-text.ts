import {
  formatReceipt,
  type KmsReceipt,
  parseReceipt,
  RECEIPTS_MAX,
  receiptTextSchema,
} from '@bundoc/shared/contract/kms-receipt';
import { z } from 'zod';

const FORMAT = 1;

/** The receipts of BunKMS that Bundoc keeps (docs/formats/kms-receipts.md). In the clear and not secret. */
const receiptsSchema = z.strictObject({
  format: z.literal(FORMAT),
  /** One of each installation; that of the installation that answered last is last. */
  receipts: z.array(receiptTextSchema).max(RECEIPTS_MAX),
});

/** The kept receipts are none of this version's format. */
export class ReceiptsUnreadable extends Error {
  override readonly name = 'ReceiptsUnreadable';
}

/** One line. @param receipts at most {@link RECEIPTS_MAX}. */
export function formatReceipts(receipts: readonly KmsReceipt[]): string {
  return `${JSON.stringify(receiptsSchema.parse({ format: FORMAT, receipts: receipts.map(formatReceipt) }))}\n`;
}

/** @throws ReceiptsUnreadable for any other text. It does not quote the text. */
export function parseReceiptsText(text: string): readonly KmsReceipt[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    // The parser's error quotes the text, so it is dropped.
  }
  const { data } = receiptsSchema.safeParse(parsed);
  if (data !== undefined) return data.receipts.flatMap((receipt) => parseReceipt(receipt) ?? []);
  throw new ReceiptsUnreadable('they are damaged');
}
