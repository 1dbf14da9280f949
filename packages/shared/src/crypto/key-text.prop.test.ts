import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { KEY_TEXT_BYTES, readKeyHex, readKeyText, writeKeyText } from './key-text.ts';

const key = fc.uint8Array({ minLength: 32, maxLength: 32 });

/** Decodes the canonical base64 of 32 bytes with Node, without anything that Node merely tolerates. */
function byNode(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64');
  return bytes.length === 32 && bytes.toString('base64') === text ? bytes : undefined;
}

describe('a key as text', () => {
  it('is what Node writes, and is read back', () => {
    fc.assert(
      fc.property(key, (bytes) => {
        const text = Buffer.alloc(KEY_TEXT_BYTES);
        writeKeyText(bytes, text);
        expect(text.toString('latin1')).toBe(Buffer.from(bytes).toString('base64'));
        expect(readKeyText(text)).toEqual(Buffer.from(bytes));
        const hex = Buffer.from(bytes).toString('hex');
        expect(readKeyHex(Buffer.from(hex))).toEqual(Buffer.from(bytes));
        expect(readKeyHex(Buffer.from(hex.toUpperCase()))).toEqual(Buffer.from(bytes));
      }),
    );
  });

  it('is refused after any change that Node would tolerate', () => {
    const change = fc.record({ at: fc.nat(KEY_TEXT_BYTES - 1), to: fc.integer({ min: 0, max: 127 }) });
    fc.assert(
      fc.property(key, change, (bytes, { at, to }) => {
        const text = Buffer.from(Buffer.from(bytes).toString('base64'));
        text[at] = to;
        expect(readKeyText(text)).toEqual(byNode(text.toString('latin1')));
      }),
      { numRuns: 2_000 },
    );
  });

  it('is refused when it is hex with an invalid digit or of another length', () => {
    const digits = Buffer.from('0123456789abcdefABCDEF');
    fc.assert(
      fc.property(key, fc.nat(63), fc.integer({ min: 0, max: 255 }), (bytes, at, to) => {
        const text = Buffer.from(Buffer.from(bytes).toString('hex'));
        text[at] = to;
        expect(readKeyHex(text) !== undefined).toBe(digits.includes(to));
      }),
      { numRuns: 2_000 },
    );
    for (const length of [0, 31, 63, 65]) expect(readKeyHex(Buffer.alloc(length, '0'))).toBeUndefined();
    for (const length of [0, 43, 45]) expect(readKeyText(Buffer.alloc(length, 'A'))).toBeUndefined();
  });
});
