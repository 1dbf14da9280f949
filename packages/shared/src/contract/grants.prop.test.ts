import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cpuMsOf } from '../testing/timing.ts';
import { globMatches } from './grants.ts';

/** The obvious meaning of a glob. It is slow on hostile globs, so the globs are short. */
function oracle(glob: string, name: string): boolean {
  const pattern = glob.split('*').map((part) => part.replace(/[^a-z0-9]/g, '\\$&'));
  return new RegExp(`^${pattern.join('[^]*')}$`).test(name);
}

const few = (maxLength: number, ...units: string[]) =>
  fc.string({ unit: fc.constantFrom(...units), maxLength });

describe('globMatches', () => {
  it('agrees with a regular expression on every glob and name', () => {
    fc.assert(
      fc.property(few(7, 'a', 'b', '.', '-', '*'), few(9, 'a', 'b', '.', '-'), (glob, name) => {
        expect(globMatches(glob, name)).toBe(oracle(glob, name));
      }),
      { numRuns: 20_000 },
    );
  });

  it('matches any name that replaces the stars of a glob by text', () => {
    fc.assert(
      fc.property(
        fc.array(few(4, 'a', 'b'), { minLength: 1 }),
        fc.array(few(4, 'a', 'b')),
        (parts, fillings) => {
          const name = parts
            .map((part, index) => (index === 0 ? part : (fillings[index] ?? '') + part))
            .join('');
          expect(globMatches(parts.join('*'), name)).toBe(true);
        },
      ),
    );
  });

  it('takes time in proportion to the lengths, not to the number of possible matches', () => {
    const ms = cpuMsOf(() => {
      for (let count = 0; count < 1_000; count++) globMatches('*a'.repeat(64), `${'a'.repeat(127)}b`);
    });
    expect(ms).toBeLessThan(1_000);
  });
});
