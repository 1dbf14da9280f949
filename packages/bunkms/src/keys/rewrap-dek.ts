import assert from 'node:assert/strict';
import { timingSafeEqual } from 'node:crypto';
import type { KeyVersionRecord } from '../records/key-record.ts';
import { formatOf } from '../records/wrapped-key.ts';
import type { SecretName, Vault } from '../vault/vault.ts';

type WrappedDek = Pick<KeyVersionRecord, 'keyId' | 'version' | 'wrapped'>;

/**
 * A DEK wrapped with the current KEK, in the same format: no outside key is asked. @throws OpenError when it
 * does not open.
 */
export function rewrapDek(vault: Vault, name: string, { keyId, version, wrapped }: WrappedDek): Buffer {
  const identity = { keyId, name, version };
  const dek = vault.unwrapDek(wrapped, identity);
  try {
    const renewed = vault.wrapDek(dek, identity, formatOf(wrapped));
    requireSame(dek, vault.unwrapDek(renewed, identity));
    return renewed;
  } finally {
    dek.fill(0);
  }
}

/** A secret of the service wrapped with the current KEK. @throws OpenError when it does not open. */
export function rewrapSecret(vault: Vault, wrapped: Uint8Array, name: SecretName): Buffer {
  const secret = vault.unwrapSecret(wrapped, name);
  try {
    const renewed = vault.wrapSecret(secret, name);
    requireSame(secret, vault.unwrapSecret(renewed, name));
    return renewed;
  } finally {
    secret.fill(0);
  }
}

/**
 * Checks that the new wrapping opens to the same key before it replaces the old one. Wipes the opened copy.
 */
function requireSame(key: Buffer, opened: Buffer): void {
  const isSame = timingSafeEqual(key, opened);
  opened.fill(0);
  assert(isSame, 'a new wrapping opens to the wrapped key');
}
