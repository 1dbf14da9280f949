import { createSecretKey, randomUUID } from 'node:crypto';
import { inspect } from 'node:util';
import { OpenError } from '@bundoc/shared/crypto/aead';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { kekIdOf, WRAPPED_KEY_BYTES } from '../records/wrapped-key.ts';
import { Vault } from './vault.ts';

const key32 = fc.uint8Array({ minLength: 32, maxLength: 32 });
const name = fc.stringMatching(/^[a-z0-9][a-z0-9._-]{0,127}$/);
const identity = fc.record({
  keyId: fc.constant(0).map(() => randomUUID()),
  name,
  version: fc.integer({ min: 1, max: 1_000_000 }),
});

function vaultOf(...keks: Uint8Array[]): Vault {
  return new Vault(keks.map((kek) => createSecretKey(kek)));
}

describe('a wrapped DEK', () => {
  it('unwraps to the same bytes under its own identity', () => {
    fc.assert(
      fc.property(key32, key32, identity, (kek, dek, who) => {
        const vault = vaultOf(kek);
        const wrapped = vault.wrapDek(dek, who);
        expect(wrapped).toHaveLength(WRAPPED_KEY_BYTES);
        expect(vault.unwrapDek(wrapped, who)).toEqual(Buffer.from(dek));
      }),
    );
  });

  it('fails with the same error for a flipped bit, another identity, another KEK or another length', () => {
    fc.assert(
      fc.property(key32, key32, identity, fc.nat(WRAPPED_KEY_BYTES * 8 - 1), (kek, dek, who, bit) => {
        const vault = vaultOf(kek);
        const wrapped = vault.wrapDek(dek, who);
        const flipped = Buffer.from(wrapped);
        flipped[bit >> 3]! ^= 1 << (bit & 7);
        const otherKek = kek.map((byte, index) => (index === 0 ? byte ^ 1 : byte));
        const attempts = [
          () => vault.unwrapDek(flipped, who),
          () => vault.unwrapDek(wrapped, { ...who, name: who.name === 'other' ? 'another' : 'other' }),
          () => vault.unwrapDek(wrapped, { ...who, version: who.version + 1 }),
          () => vault.unwrapDek(wrapped, { ...who, keyId: randomUUID() }),
          () => vaultOf(otherKek).unwrapDek(wrapped, who),
          () => vault.unwrapDek(wrapped.subarray(1), who),
          () => vault.unwrapDek(Buffer.concat([wrapped, Buffer.of(0)]), who),
          () => vault.unwrapDek(Buffer.alloc(0), who),
          () => vault.unwrapSecret(wrapped, 'audit-chain-key'),
        ];
        const messages = attempts.map((attempt) => {
          try {
            attempt();
            return 'no error';
          } catch (error) {
            expect(error).toBeInstanceOf(OpenError);
            return (error as Error).message;
          }
        });
        expect(new Set(messages).size).toBe(1);
      }),
    );
  });

  it('still unwraps after another KEK has become current', () => {
    fc.assert(
      fc.property(key32, key32, key32, identity, (oldKek, newKek, dek, who) => {
        fc.pre(!Buffer.from(oldKek).equals(newKek));
        const wrapped = vaultOf(oldKek).wrapDek(dek, who);
        const ring = vaultOf(newKek, oldKek);
        expect(ring.unwrapDek(wrapped, who)).toEqual(Buffer.from(dek));
        expect(kekIdOf(ring.wrapDek(dek, who))).toBe(ring.currentKekId);
        expect(kekIdOf(wrapped)).not.toBe(ring.currentKekId);
      }),
    );
  });
});

it('a secret does not unwrap as another secret or as a DEK', () => {
  const vault = vaultOf(new Uint8Array(32).fill(7));
  const wrapped = vault.wrapSecret(new Uint8Array(32).fill(1), 'audit-chain-key');
  expect(vault.unwrapSecret(wrapped, 'audit-chain-key')).toEqual(Buffer.alloc(32, 1));
  expect(() => vault.unwrapSecret(wrapped, 'token-signing-seed')).toThrow(OpenError);
  expect(() => vault.unwrapDek(wrapped, { keyId: 'a', name: 'b', version: 1 })).toThrow(OpenError);
});

it('a check value distinguishes KEKs and is not part of the key', () => {
  const [one, other] = [vaultOf(new Uint8Array(32).fill(1)), vaultOf(new Uint8Array(32).fill(2))];
  expect(one.checkValueOf(one.currentKekId)).toMatch(/^[0-9a-f]{32}$/);
  expect(one.checkValueOf(one.currentKekId)).not.toBe(other.checkValueOf(other.currentKekId));
  expect(one.checkValueOf(other.currentKekId)).toBeUndefined();
});

it('inspecting a vault reveals no KEK', () => {
  const kek = Buffer.alloc(32, 'K');
  const shown = `${inspect(vaultOf(kek), { depth: 9, showHidden: true })}${JSON.stringify(vaultOf(kek))}`;
  for (const form of [kek.toString(), kek.toString('hex'), kek.toString('base64')])
    expect(shown).not.toContain(form);
});
