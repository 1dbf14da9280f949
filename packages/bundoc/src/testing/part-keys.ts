import type { KeyObject } from 'node:crypto';
import { deriveKey } from '@bundoc/shared/crypto/aead';
import type { PartKeys } from '../engine/files/log/part-seal.ts';

/** {@link PartKeys} from DEKs without a project's cipher. */
export function partKeysOf(deks: ReadonlyMap<number, KeyObject>): PartKeys {
  return {
    subkey: (version, info, salt) => {
      const dek = deks.get(version);
      return dek === undefined ? undefined : deriveKey(dek, info, salt);
    },
  };
}
