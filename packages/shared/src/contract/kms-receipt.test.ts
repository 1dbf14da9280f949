import { describe, expect, it } from 'vitest';
import {
  formatReceipt,
  isNewer,
  type KmsReceipt,
  parseReceipt,
  parseReceipts,
  RECEIPTS_MAX,
} from './kms-receipt.ts';

const receipt: KmsReceipt = {
  installation: '0123456789abcdef',
  epoch: 0,
  seq: 7,
  hash: 'a'.repeat(64),
  mac: 'B'.repeat(43),
};

describe('a receipt of BunKMS', () => {
  it('is the same after it was written and read', () => {
    expect(parseReceipt(formatReceipt(receipt))).toEqual(receipt);
  });

  it('is read from a list of at most four', () => {
    const text = formatReceipt(receipt);
    expect(parseReceipts(`${text}, ${text}`)).toEqual([receipt, receipt]);
    expect(
      parseReceipts(
        Array(RECEIPTS_MAX + 1)
          .fill(text)
          .join(','),
      ),
    ).toBeUndefined();
  });

  it.each([
    '',
    ',',
    'x',
    `${formatReceipt(receipt)},`,
    `${formatReceipt(receipt)}x`,
    formatReceipt({ ...receipt, seq: 2 ** 53 }),
  ])('is not read from %j', (text) => {
    expect(parseReceipts(text)).toBeUndefined();
  });

  it('a receipt of a later restore is newer, whatever its number', () => {
    expect(isNewer({ epoch: 5, seq: 1 }, { epoch: 4, seq: 9 })).toBe(true);
    expect(isNewer({ epoch: 4, seq: 9 }, { epoch: 5, seq: 1 })).toBe(false);
    expect(isNewer({ epoch: 4, seq: 9 }, { epoch: 4, seq: 9 })).toBe(false);
  });
});
