import { z } from 'zod';

/**
 * The header in which an answer of BunKMS carries a receipt, and in which a later request returns it. A
 * request may carry the receipts of several installations, separated by commas.
 */
export const RECEIPT_HEADER = 'bunkms-receipt';

/** The most receipts in one request. */
export const RECEIPTS_MAX = 4;

const RECEIPT = /^([0-9a-f]{16})\.(\d{1,16})\.(\d{1,16})\.([0-9a-f]{64})\.([A-Za-z0-9_-]{43})$/;

/**
 * A record that BunKMS's audit chain contained. Only BunKMS can make one, because `mac` needs the key of the
 * chain. It is not secret.
 */
export interface KmsReceipt {
  /** Identifies the installation of BunKMS. */
  readonly installation: string;
  /** When the chain was last restored, milliseconds; 0 if it never was. A restore ends earlier receipts. */
  readonly epoch: number;
  readonly seq: number;
  /** Hash of that record, hex. */
  readonly hash: string;
  readonly mac: string;
}

export function formatReceipt({ installation, epoch, seq, hash, mac }: KmsReceipt): string {
  return `${installation}.${epoch}.${seq}.${hash}.${mac}`;
}

/** @returns undefined for any other text. */
export function parseReceipt(text: string): KmsReceipt | undefined {
  const [, installation = '', epoch, seq, hash = '', mac = ''] = RECEIPT.exec(text) ?? [];
  const receipt = { installation, epoch: Number(epoch), seq: Number(seq), hash, mac };
  return installation !== '' && Number.isSafeInteger(receipt.epoch) && Number.isSafeInteger(receipt.seq)
    ? receipt
    : undefined;
}

/** @returns undefined when one of them is no receipt, or there are more than {@link RECEIPTS_MAX}. */
export function parseReceipts(header: string): readonly KmsReceipt[] | undefined {
  const texts = header.split(',', RECEIPTS_MAX + 1);
  const receipts = texts.flatMap((text) => parseReceipt(text.trim()) ?? []);
  return receipts.length === texts.length && texts.length <= RECEIPTS_MAX ? receipts : undefined;
}

/** Whether a receipt is of a later record than another one of the same installation. */
export function isNewer(
  one: Pick<KmsReceipt, 'epoch' | 'seq'>,
  than: Pick<KmsReceipt, 'epoch' | 'seq'>,
): boolean {
  return one.epoch === than.epoch ? one.seq > than.seq : one.epoch > than.epoch;
}

/** A receipt in a file or row of Bundoc. */
export const receiptTextSchema = z.string().refine((text) => parseReceipt(text) !== undefined);
