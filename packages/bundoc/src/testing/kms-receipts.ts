import { formatReceipt, type KmsReceipt } from '@bundoc/shared/contract/kms-receipt';
import type { ReceiptStore } from '../kms/receipt-store.ts';
import { formatReceipts } from '../kms/receipts-text.ts';

/** A receipt of this record, with a mac that only BunKMS could judge. */
export function receiptOf(seq: number, of: Partial<KmsReceipt> = {}): KmsReceipt {
  return {
    installation: '0123456789abcdef',
    epoch: 0,
    seq,
    hash: seq.toString(16).padStart(64, '0'),
    mac: 'M'.repeat(43),
    ...of,
  };
}

/** As in a header. */
export const receiptText = (seq: number, of?: Partial<KmsReceipt>): string =>
  formatReceipt(receiptOf(seq, of));

/** A storage in memory that counts its writes. */
export class ReceiptsInMemory implements ReceiptStore {
  text: string | undefined;
  writes = 0;
  /** Called when a write has its text. It may delay or fail the write. */
  beforeStored: () => Promise<void> = async () => undefined;

  constructor(...receipts: readonly KmsReceipt[]) {
    if (receipts.length > 0) this.text = formatReceipts(receipts);
  }

  read(): Promise<string | undefined> {
    return Promise.resolve(this.text);
  }

  async write(textOf: (present: string | undefined) => string): Promise<void> {
    this.writes++;
    const text = textOf(this.text);
    await this.beforeStored();
    this.text = text;
  }
}
