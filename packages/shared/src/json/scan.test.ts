import { describe, expect, it } from 'vitest';
import { closingQuote, scanJson } from './scan.ts';

describe('the end of a string', () => {
  it('is found at every length, even after escaped quotes', () => {
    for (let length = 0; length < 80; length++) {
      for (const escaped of ['', '\\"', '\\\\']) {
        const value = `${escaped}${'x'.repeat(length)}${escaped}`;
        const text = Buffer.from(`{"name":"${value}","next":1}`);
        expect(closingQuote(text, 8), value).toBe(9 + value.length);
        expect(scanJson(text).members.map(({ name }) => name)).toEqual(['name', 'next']);
      }
    }
  });

  it('is the last byte when there is no closing quote', () => {
    for (const length of [0, 1, 30, 31, 32, 80])
      expect(closingQuote(Buffer.from(`"${'x'.repeat(length)}`), 0)).toBe(length);
  });
});
