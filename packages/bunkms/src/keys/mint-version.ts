import { createSecretKey, randomBytes } from 'node:crypto';
import { KEY_BYTES, keyCheckValue } from '@bundoc/shared/crypto/aead';
import { type OutsideKey, OutsideKeyError } from '../outside/port.ts';
import type { KeyVersionRecord } from '../records/key-record.ts';
import { OUTSIDE_FORMAT } from '../records/wrapped-key.ts';
import { encodeOutsideDek, sealUnderShare } from '../vault/outside-dek.ts';
import type { DekIdentity, Vault } from '../vault/vault.ts';
import { outsideRefusal } from './open-dek.ts';

/**
 * A new version of a key, with a random DEK.
 *
 * @param outside the outside key that protects it as well, if any.
 * @throws AppError `outside_key_denied`, `outside_key_unavailable`.
 */
export async function mintVersion(
  vault: Vault,
  identity: DekIdentity,
  createdAt: string,
  outside: OutsideKey | undefined,
): Promise<KeyVersionRecord> {
  const dek = randomBytes(KEY_BYTES);
  try {
    return {
      keyId: identity.keyId,
      version: identity.version,
      kcv: keyCheckValue(createSecretKey(dek)),
      state: 'available',
      createdAt,
      destroyedAt: null,
      wrapped: await wrapVersion(vault, dek, identity, outside),
    };
  } finally {
    dek.fill(0);
  }
}

/**
 * Wraps a DEK, which the caller wipes. What a provider has wrapped must unwrap before anything depends on
 * it.
 *
 * @throws AppError `outside_key_denied`, `outside_key_unavailable`.
 */
export async function wrapVersion(
  vault: Vault,
  dek: Uint8Array,
  identity: DekIdentity,
  outside: OutsideKey | undefined,
): Promise<Buffer> {
  if (outside === undefined) return vault.wrapDek(dek, identity);
  const share = randomBytes(KEY_BYTES);
  try {
    const blob = await outside.wrap(share);
    const again = await outside.unwrap(blob);
    const isSame = share.equals(again);
    again.fill(0);
    if (!isSame) throw new OutsideKeyError('damaged', 'it unwraps other bytes than it has wrapped');
    const sealed = sealUnderShare(share, dek, identity, { outside: outside.name, blob });
    return vault.wrapDek(encodeOutsideDek(sealed), identity, OUTSIDE_FORMAT);
  } catch (error) {
    throw outsideRefusal(outside.name, error);
  } finally {
    share.fill(0);
  }
}
