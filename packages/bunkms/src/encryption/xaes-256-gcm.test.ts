import { createCipheriv, createHash, createSecretKey } from 'node:crypto';
import { OpenError } from '@bundoc/shared/crypto/aead';
import { describe, expect, it } from 'vitest';
import { messageKey, openExtended, sealExtended } from './xaes-256-gcm.ts';

/** Seals with a given nonce, for test vectors. */
function sealWith(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, aad: Uint8Array): Buffer {
  const derived = messageKey(createSecretKey(key), nonce.subarray(0, 12));
  const cipher = createCipheriv('aes-256-gcm', derived, nonce.subarray(12), { authTagLength: 16 });
  cipher.setAAD(aad);
  return Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
}

describe('XAES-256-GCM', () => {
  // https://c2sp.org/XAES-256-GCM, "Test vectors": in the second one the most significant bit of L is set.
  it.each([
    [
      1,
      '',
      'c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b',
      'ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271',
    ],
    [
      3,
      'c2sp.org/XAES-256-GCM',
      'e9c621d4cdd9b11b00a6427ad7e559aeedd66b3857646677748f8ca796cb3fd8',
      '986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d',
    ],
  ])('matches the published vector (key of bytes %i)', (byte, aad, derived, sealed) => {
    const key = Buffer.alloc(32, byte);
    const nonce = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWX');
    expect(messageKey(createSecretKey(key), nonce.subarray(0, 12)).export().toString('hex')).toBe(derived);
    const plaintext = Buffer.from('XAES-256-GCM');
    expect(sealWith(key, nonce, plaintext, Buffer.from(aad)).toString('hex')).toBe(sealed);
    const whole = Buffer.concat([nonce, Buffer.from(sealed, 'hex')]);
    expect(openExtended(createSecretKey(key), whole, Buffer.from(aad))).toEqual(plaintext);
  });

  it('matches the published hash over 10,000 messages with random keys, nonces, lengths and AADs', () => {
    const count = 10_000;
    const stream = createHash('shake128', { outputLength: count * (32 + 24 + 2 * 256) }).digest();
    let at = 0;
    const take = (bytes: number) => {
      at += bytes;
      return stream.subarray(at - bytes, at);
    };
    const taken = createHash('shake128', { outputLength: 32 });
    for (let message = 0; message < count; message++) {
      const [key, nonce] = [take(32), take(24)];
      const plaintext = take(Number(take(1)[0]));
      const aad = take(Number(take(1)[0]));
      taken.update(sealWith(key, nonce, plaintext, aad));
    }
    expect(taken.digest('hex')).toBe('e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939');
  });

  it('uses a new nonce for each message, and opens to the sealed plaintext', () => {
    const key = createSecretKey(Buffer.alloc(32, 7));
    const sealed = Array.from({ length: 50 }, () => sealExtended(key, Buffer.from('one'), Buffer.from('a')));
    expect(new Set(sealed.map((one) => one.toString('hex', 0, 12))).size).toBe(50);
    expect(new Set(sealed.map((one) => one.toString('hex', 12, 24))).size).toBe(50);
    for (const one of sealed) {
      expect(one).toHaveLength(43);
      expect(openExtended(key, one, Buffer.from('a')).toString()).toBe('one');
      expect(() => openExtended(key, one, Buffer.from('b'))).toThrow(OpenError);
      expect(() => openExtended(key, one.subarray(0, 39), Buffer.from('a'))).toThrow(OpenError);
    }
  });
});
