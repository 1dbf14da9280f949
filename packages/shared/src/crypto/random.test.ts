import { describe, expect, it } from 'vitest';
import { fillRandom, smallRandom } from './random.ts';

describe('fillRandom', () => {
  it('gives no value twice, within a block and over many', () => {
    const seen = new Set(Array.from({ length: 20_000 }, () => smallRandom(12).toString('hex')));
    expect(seen.size).toBe(20_000);
  });

  it('fills every byte, for sizes that do not divide the block and for larger ones', () => {
    for (const bytes of [1, 12, 1_000, 3_000, 4_095, 4_096, 4_097, 20_000]) {
      const seen = new Uint8Array(bytes);
      // Each byte is not zero at least once in forty fillings, except with a probability of 256^-40.
      for (let turn = 0; turn < 40; turn++) {
        const target = new Uint8Array(bytes);
        fillRandom(target);
        target.forEach((value, at) => {
          seen[at] = (seen[at] as number) | value;
        });
      }
      expect(seen.every((value) => value !== 0)).toBe(true);
    }
  });

  it('fills a part of a buffer and nothing outside it', () => {
    const target = Buffer.alloc(36);
    fillRandom(target.subarray(12, 24));
    expect(target.subarray(0, 12)).toEqual(Buffer.alloc(12));
    expect(target.subarray(24)).toEqual(Buffer.alloc(12));
  });
});
