import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { base64Schema } from './base64.ts';

const BYTES_MAX = 64;
const accepts = (text: string) => base64Schema(BYTES_MAX).safeParse(text).success;

describe('bytes in base64', () => {
  it('are accepted in canonical form only, up to the limit', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2 * BYTES_MAX }), (bytes) => {
        expect(accepts(Buffer.from(bytes).toString('base64'))).toBe(bytes.length <= BYTES_MAX);
      }),
    );
  });

  it('have exactly one accepted text: no other text decodes to the same bytes', () => {
    const characters = fc.constantFrom(...'ABYZabyz0189+/=-_ \n\0é');
    fc.assert(
      fc.property(fc.string({ unit: characters, maxLength: 12 }), (text) => {
        expect(accepts(text)).toBe(Buffer.from(text, 'base64').toString('base64') === text);
      }),
      { numRuns: 2_000 },
    );
  });

  it.each(['AB==', 'AAB=', 'A', 'AA', 'AAA', 'AAAA=', '====', 'AA==AAAA', 'AAA-', 'AAA_', ' AAA', 'AAAA\n'])(
    '%j is refused',
    (text) => expect(accepts(text)).toBe(false),
  );
});
