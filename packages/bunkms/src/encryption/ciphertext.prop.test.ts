import { createSecretKey } from 'node:crypto';
import { OpenError } from '@bundoc/shared/crypto/aead';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  CIPHERTEXT_OVERHEAD_BYTES,
  ciphertextKeyOf,
  decryptFrom,
  encryptionKeyOf,
  encryptTo,
} from './ciphertext.ts';

const bytes = (maxLength: number) => fc.uint8Array({ maxLength }).map((array) => Buffer.from(array));
const dek = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((raw) => createSecretKey(Buffer.from(raw)));
const identity = fc.record({ keyId: fc.uuid(), version: fc.integer({ min: 1, max: 1_000 }) });
const encrypted = fc
  .record({ identity, dek, plaintext: bytes(300), aad: bytes(100) })
  .map((parts) => ({ ...parts, key: encryptionKeyOf(parts.dek) }))
  .map((parts) => ({
    ...parts,
    ciphertext: encryptTo(parts.identity, parts.key, parts.plaintext, parts.aad),
  }));

describe('a ciphertext', () => {
  it('opens to the plaintext, names its key and version, and differs each time', () => {
    fc.assert(
      fc.property(encrypted, ({ identity, key, plaintext, aad, ciphertext }) => {
        expect(ciphertext).toHaveLength(plaintext.length + CIPHERTEXT_OVERHEAD_BYTES);
        expect(ciphertextKeyOf(ciphertext)).toEqual(identity);
        expect(decryptFrom(key, ciphertext, aad)).toEqual(plaintext);
        expect(encryptTo(identity, key, plaintext, aad)).not.toEqual(ciphertext);
      }),
    );
  });

  it('does not open when any bit is changed, or when it is truncated or extended', () => {
    fc.assert(
      fc.property(encrypted, fc.nat(), bytes(20), ({ key, aad, ciphertext }, bit, more) => {
        const at = bit % (ciphertext.length * 8);
        const changed = Buffer.from(ciphertext);
        changed[at >> 3] = (changed[at >> 3] ?? 0) ^ (1 << (at & 7));
        const cut = bit % ciphertext.length;
        const others = [
          changed,
          ciphertext.subarray(0, cut),
          Buffer.concat([ciphertext, more, Buffer.of(0)]),
        ];
        if (cut > 0) others.push(ciphertext.subarray(cut));
        for (const other of others) expect(() => decryptFrom(key, other, aad)).toThrow(OpenError);
      }),
    );
  });

  it('does not open under another AAD', () => {
    fc.assert(
      fc.property(encrypted, bytes(100), ({ key, aad, ciphertext }, other) => {
        fc.pre(!other.equals(aad));
        expect(() => decryptFrom(key, ciphertext, other)).toThrow(OpenError);
      }),
    );
  });

  it('does not open under another key, nor under the DEK itself', () => {
    fc.assert(
      fc.property(encrypted, dek, ({ dek: own, aad, ciphertext }, other) => {
        fc.pre(!own.equals(other));
        for (const key of [own, other, encryptionKeyOf(other)])
          expect(() => decryptFrom(key, ciphertext, aad)).toThrow(OpenError);
      }),
    );
  });

  it('is recognized by its length and format, whatever else it contains', () => {
    fc.assert(
      fc.property(bytes(200), (any) => {
        const named = ciphertextKeyOf(any);
        expect(named !== undefined).toBe(any.length >= CIPHERTEXT_OVERHEAD_BYTES && any[0] === 1);
        if (named !== undefined) expect(named.keyId).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
      }),
    );
  });
});
