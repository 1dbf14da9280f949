import { createSecretKey, randomUUID } from 'node:crypto';
import { OpenError } from '@bundoc/shared/crypto/aead';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { kekIdOf, OUTSIDE_DEK_BYTES, OUTSIDE_FORMAT } from '../records/wrapped-key.ts';
import { decodeOutsideDek, encodeOutsideDek, openUnderShare, sealUnderShare } from './outside-dek.ts';
import { Vault } from './vault.ts';

const key32 = fc.uint8Array({ minLength: 32, maxLength: 32 });
const outside = fc.stringMatching(/^[a-z0-9][a-z0-9-]{0,62}$/);
const blob = fc.uint8Array({ minLength: 1, maxLength: 384 });
const identity = fc.record({
  keyId: fc.constant(0).map(() => randomUUID()),
  name: fc.stringMatching(/^[a-z0-9][a-z0-9._-]{0,127}$/),
  version: fc.integer({ min: 1, max: 1_000 }),
});
const vaultOf = (kek: Uint8Array) => new Vault([createSecretKey(kek)]);

describe('a DEK under an outside key', () => {
  it('opens with its share, through our own layer, under its own identity', () => {
    fc.assert(
      fc.property(key32, key32, key32, identity, outside, blob, (kek, share, dek, who, name, wrapped) => {
        const vault = vaultOf(kek);
        const sealed = sealUnderShare(Buffer.from(share), dek, who, { outside: name, blob: wrapped });
        const bytes = vault.wrapDek(encodeOutsideDek(sealed), who, OUTSIDE_FORMAT);
        expect(kekIdOf(bytes)).toBe(vault.currentKekId);
        const own = decodeOutsideDek(vault.unwrapDek(bytes, who));
        expect(own).toEqual({ outside: name, blob: Buffer.from(wrapped), inner: Buffer.from(sealed.inner) });
        expect(openUnderShare(Buffer.from(share), sealed, who)).toEqual(Buffer.from(dek));
      }),
    );
  });

  it('fails with another share, name, wrapped share, identity or changed bit, and as a secret', () => {
    fc.assert(
      fc.property(
        key32,
        key32,
        identity,
        outside,
        blob,
        fc.nat(479),
        (share, dek, who, name, wrapped, bit) => {
          const sealed = sealUnderShare(Buffer.from(share), dek, who, { outside: name, blob: wrapped });
          const changed = Buffer.from(sealed.inner);
          changed[bit >> 3]! ^= 1 << (bit & 7);
          const other = share.map((byte, at) => (at === 0 ? byte ^ 1 : byte));
          const vault = vaultOf(dek);
          const bytes = vault.wrapDek(encodeOutsideDek(sealed), who, OUTSIDE_FORMAT);
          const asFirst = Buffer.from(bytes);
          asFirst[0] = 1;
          for (const attempt of [
            () => openUnderShare(Buffer.from(other), sealed, who),
            () => openUnderShare(Buffer.from(share.subarray(1)), sealed, who),
            () => openUnderShare(Buffer.from(share), { ...sealed, outside: `${name}x` }, who),
            () =>
              openUnderShare(Buffer.from(share), { ...sealed, blob: Buffer.concat([wrapped, share]) }, who),
            () => openUnderShare(Buffer.from(share), { ...sealed, inner: changed }, who),
            () => openUnderShare(Buffer.from(share), sealed, { ...who, version: who.version + 1 }),
            () => openUnderShare(Buffer.from(share), sealed, { ...who, keyId: randomUUID() }),
            () => openUnderShare(Buffer.from(share), sealed, { ...who, name: `${who.name}x` }),
            () => vault.unwrapDek(bytes, { ...who, version: who.version + 1 }),
            () => vault.unwrapDek(asFirst, who),
            () => vault.unwrapSecret(bytes, 'audit-chain-key'),
          ])
            expect(attempt).toThrow(OpenError);
        },
      ),
    );
  });

  it('has one form: no other bytes are read, however long', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: OUTSIDE_DEK_BYTES.max + 8 }), (bytes) => {
        const own = decodeOutsideDek(Buffer.from(bytes));
        if (own !== undefined) expect(encodeOutsideDek(own)).toEqual(Buffer.from(bytes));
      }),
    );
    const sealed = sealUnderShare(
      Buffer.alloc(32, 1),
      Buffer.alloc(32, 2),
      { keyId: 'a', name: 'b', version: 1 },
      {
        outside: 'acme',
        blob: Buffer.alloc(384, 3),
      },
    );
    const bytes = encodeOutsideDek(sealed);
    for (let length = 0; length < bytes.length; length++)
      expect(decodeOutsideDek(bytes.subarray(0, length))).toBeUndefined();
    expect(decodeOutsideDek(Buffer.concat([bytes, Buffer.of(0)]))).toBeUndefined();
  });

  it('wipes the share that it was given', () => {
    const share = Buffer.alloc(32, 7);
    const who = { keyId: 'a', name: 'b', version: 1 };
    const sealed = sealUnderShare(share, Buffer.alloc(32, 2), who, { outside: 'acme', blob: Buffer.of(1) });
    expect(share).toEqual(Buffer.alloc(32));
    const again = Buffer.alloc(32, 7);
    openUnderShare(again, sealed, who);
    expect(again).toEqual(Buffer.alloc(32));
  });
});
