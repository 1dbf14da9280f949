import { createSecretKey, randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  aadOf,
  KEY_BYTES,
  OpenError,
  open,
  SEAL_OVERHEAD_BYTES,
  seal,
  sealInSteps,
  takeKey,
} from './aead.ts';

const bytes = (maxLength: number) => fc.uint8Array({ maxLength }).map((array) => Buffer.from(array));
const key = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((raw) => createSecretKey(Buffer.from(raw)));
const sealedCase = fc
  .record({ key, plaintext: bytes(300), aad: bytes(100) })
  .map((parts) => ({ ...parts, sealed: seal(parts.key, parts.plaintext, parts.aad) }));

function expectRefused(attempt: () => unknown): void {
  let thrown: unknown;
  try {
    attempt();
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toBeInstanceOf(OpenError);
  expect((thrown as Error).message).toBe('the sealed bytes do not open');
}

describe('sealing', () => {
  it('opens to the bytes that were sealed, and to a new seal each time', () => {
    fc.assert(
      fc.property(sealedCase, ({ key, plaintext, aad, sealed }) => {
        expect(open(key, sealed, aad)).toEqual(plaintext);
        expect(seal(key, plaintext, aad)).not.toEqual(sealed);
      }),
    );
  });

  it.each([0, 1, 1_048_575, 1_048_576, 1_048_577, 3_000_000])(
    'opens to %d bytes that were sealed step by step',
    (length) => {
      const own = takeKey(randomBytes(KEY_BYTES));
      const plaintext = randomBytes(length);
      const target = Buffer.alloc(length + SEAL_OVERHEAD_BYTES);
      const steps = [...sealInSteps(own, plaintext, aadOf('steps'), target)];
      expect(steps).toHaveLength(Math.ceil(length / 1_048_576));
      expect(open(own, target, aadOf('steps')).equals(plaintext)).toBe(true);
    },
  );

  it('does not open after any single bit was flipped', () => {
    fc.assert(
      fc.property(sealedCase, fc.nat(), ({ key, aad, sealed }, bit) => {
        const at = bit % (sealed.length * 8);
        const changed = Buffer.from(sealed);
        changed[at >> 3] = (changed[at >> 3] ?? 0) ^ (1 << (at & 7));
        expectRefused(() => open(key, changed, aad));
      }),
      { numRuns: 300 },
    );
  });

  it('does not open with any one bit of a short document flipped, each in turn', () => {
    const fixed = createSecretKey(Buffer.alloc(32, 1));
    const sealed = seal(fixed, Buffer.from('{"a":1}'), aadOf('x'));
    for (let at = 0; at < sealed.length * 8; at++) {
      const changed = Buffer.from(sealed);
      changed[at >> 3] = (changed[at >> 3] ?? 0) ^ (1 << (at & 7));
      expectRefused(() => open(fixed, changed, aadOf('x')));
    }
  });

  it('does not open when truncated at either end, or extended', () => {
    fc.assert(
      fc.property(sealedCase, fc.nat(), bytes(20), ({ key, aad, sealed }, cut, more) => {
        const at = cut % sealed.length;
        expectRefused(() => open(key, sealed.subarray(0, at), aad));
        if (at > 0) expectRefused(() => open(key, sealed.subarray(at), aad));
        if (more.length > 0) {
          expectRefused(() => open(key, Buffer.concat([sealed, more]), aad));
          expectRefused(() => open(key, Buffer.concat([more, sealed]), aad));
        }
      }),
    );
  });

  it('does not open under another key or another AAD', () => {
    fc.assert(
      fc.property(sealedCase, key, bytes(100), ({ key, aad, sealed }, otherKey, otherAad) => {
        fc.pre(!otherAad.equals(aad) && !otherKey.equals(key));
        expectRefused(() => open(otherKey, sealed, aad));
        expectRefused(() => open(key, sealed, otherAad));
      }),
    );
  });

  it('does not open when the parts of two seals are mixed', () => {
    fc.assert(
      fc.property(key, bytes(50), bytes(50), (key, one, two) => {
        const aad = aadOf('a');
        const first = seal(key, one, aad);
        const second = seal(key, two, aad);
        expectRefused(() => open(key, Buffer.concat([first.subarray(0, 12), second.subarray(12)]), aad));
        expectRefused(() =>
          open(key, Buffer.concat([first.subarray(0, first.length - 16), second.subarray(-16)]), aad),
        );
      }),
    );
  });
});

describe('aadOf', () => {
  it('gives different bytes for different lists of parts', () => {
    const part = fc.string({ unit: fc.constantFrom('a', 'b', '/', '\ufffd', 'é', '😀'), maxLength: 3 });
    const parts = fc.array(part, { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(parts, parts, (one, two) => {
        expect(aadOf(...one).equals(aadOf(...two))).toBe(JSON.stringify(one) === JSON.stringify(two));
      }),
      { numRuns: 1_000 },
    );
  });

  it('can be split into its parts at the NUL bytes, whatever the text', () => {
    fc.assert(
      fc.property(fc.array(fc.string({ unit: 'binary' }), { minLength: 1 }), (parts) => {
        fc.pre(parts.every((part) => !part.includes('\0') && part.isWellFormed()));
        expect(
          aadOf(...parts)
            .toString('utf8')
            .split('\0'),
        ).toEqual(parts);
      }),
    );
  });
});
