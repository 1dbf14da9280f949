import { randomBytes } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { Caller } from '../records/caller.ts';
import { type CryptoDeps, type DecryptedItem, type EncryptedItem, encryptItems } from './encrypt-items.ts';

/** A new random key for the caller, and its encryption under a key that stays. */
export type DataKey = DecryptedItem & EncryptedItem;

/**
 * Makes a data key of `bytes` random bytes. Its ciphertext is what {@link encryptItems} makes of it, so
 * `decryptItems` opens it, and the audit has it as an encryption. BunKMS keeps no copy.
 *
 * @returns with a `plaintext` that the caller wipes. @throws AppError as {@link encryptItems}.
 */
export async function makeDataKey(
  deps: CryptoDeps,
  name: string,
  { bytes, aad }: { readonly bytes: number; readonly aad: Buffer },
  caller: Caller,
): Promise<DataKey> {
  const plaintext = randomBytes(bytes);
  try {
    const [encrypted] = await encryptItems(deps, name, [{ plaintext, aad }], caller);
    if (encrypted === undefined || encrypted instanceof AppError) throw encrypted;
    return { ...encrypted, plaintext };
  } catch (error) {
    plaintext.fill(0);
    throw error;
  }
}
