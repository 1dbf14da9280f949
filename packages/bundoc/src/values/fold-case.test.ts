import { describe, expect, it } from 'vitest';
import { foldCase } from './fold-case.ts';

const characters = Array.from({ length: 0x110000 }, (_, code) => code)
  .filter((code) => code < 0xd800 || code > 0xdfff)
  .map((code) => String.fromCodePoint(code));
const changing = characters.filter((one) => foldCase(one) !== one || one.toLowerCase() !== one);

describe('case folding', () => {
  it('makes each character equal to its upper, lower and title case, and changes no folded text', () => {
    expect(changing.length).toBeGreaterThan(2_000);
    for (const one of changing) {
      const folded = foldCase(one);
      expect([one.toLowerCase(), one.toUpperCase(), folded].map(foldCase)).toEqual([folded, folded, folded]);
    }
    expect(['ǅ', 'Ǆ', 'ǆ'].map(foldCase)).toEqual(['Ǆ', 'Ǆ', 'Ǆ']);
  });

  it('makes all characters equal that are so in a regular expression without case', () => {
    for (const one of changing)
      for (const other of [one.toLowerCase(), one.toUpperCase()])
        if (new RegExp(`^${one}$`, 'iu').test(other)) expect(foldCase(other)).toBe(foldCase(one));
  });

  it('folds each character by itself, and makes none shorter', () => {
    for (const one of changing) {
      expect(foldCase(one).length).toBeGreaterThanOrEqual(one.length);
      expect(foldCase(`a${one}`) + foldCase(`${one}a`)).toBe(`A${foldCase(one).repeat(2)}A`);
    }
    expect(foldCase('ΟΔΟΣ ΟΔΟΣΑ')).toBe(foldCase('οδος οδοσα'));
  });

  it('does not compose characters: é of one character is not é of two', () => {
    expect(foldCase('\u00e9')).not.toBe(foldCase('e\u0301'));
  });
});
