import { hasCode } from '@bundoc/shared/contract/app-error';
import { Mutex } from '@bundoc/shared/runtime/mutex';
import { advanceStorage } from '../engine/identity/started-storage.ts';
import type { StorageIdentity } from '../engine/identity/storage-file.ts';
import type { KeyService, StorageCalls } from '../kms/port.ts';

/** The part of BunKMS that a command needs, called on behalf of the storage that the command works on. */
export interface StorageExporter extends Pick<KeyService, 'exportKey'> {
  readonly storage: StorageShown;
}

/** A storage as commands print it. */
export interface StorageShown {
  readonly id: string;
  /** The last generation that BunKMS confirmed; undefined before the first start. */
  readonly generation: string | undefined;
}

/**
 * Exports keys under the storage's id and confirmed generation. If BunKMS has confirmed none, or the answer
 * to a confirmation was lost, the command confirms a new one, as a start does.
 */
export async function storageExporter(
  identity: StorageIdentity,
  kms: Pick<StorageCalls, 'exportKey' | 'advanceStorage'>,
): Promise<StorageExporter> {
  const { id, generation } = await identity.read();
  const advancing = new Mutex();
  /** Of several calls at once with the same generation, one confirms another, and the others find that. */
  const acting = (refused?: string) => advancing.run(() => actingNow(refused));
  const actingNow = async (refused?: string) => {
    const file = await identity.read();
    const isUsable = file.generation !== undefined && file.generation !== refused;
    if (isUsable) return { storage: id, generation: String(file.generation) };
    return (await advanceStorage(identity, kms)).acting;
  };
  return {
    storage: { id, generation },
    exportKey: async (name, version) => {
      const first = await acting();
      try {
        return await kms.exportKey(name, version, first);
      } catch (error) {
        if (!hasCode(error, 'storage_superseded')) throw error;
        return await kms.exportKey(name, version, await acting(first.generation));
      }
    },
  };
}
