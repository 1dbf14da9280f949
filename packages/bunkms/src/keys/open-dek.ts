import { createSecretKey } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import { keyCheckValue, OpenError } from '@bundoc/shared/crypto/aead';
import type { Logger } from '@bundoc/shared/logs/logger';
import type { KeyVersionRecord } from '../records/key-record.ts';
import { kekIdOf } from '../records/wrapped-key.ts';
import type { Vault } from '../vault/vault.ts';

/**
 * Unwraps a stored DEK and compares its check value. @returns the raw DEK, which the caller wipes.
 * @throws AppError `key_damaged`.
 */
export function openDek(
  { vault, logger }: { readonly vault: Vault; readonly logger: Logger },
  name: string,
  { keyId, version, kcv, wrapped }: KeyVersionRecord,
): Buffer {
  const damaged = (reason: string): AppError => {
    logger.error({ keyName: name, keyId, version, reason }, 'a stored key is damaged');
    return new AppError('key_damaged');
  };
  let dek: Buffer;
  try {
    dek = vault.unwrapDek(wrapped, { keyId, name, version });
  } catch (error) {
    if (error instanceof OpenError)
      throw damaged(vault.holds(kekIdOf(wrapped) ?? '') ? 'it does not unwrap' : 'the ring lacks its KEK');
    throw error;
  }
  try {
    if (keyCheckValue(createSecretKey(dek)) !== kcv) throw damaged('its check value differs');
  } catch (error) {
    dek.fill(0);
    throw error;
  }
  return dek;
}
