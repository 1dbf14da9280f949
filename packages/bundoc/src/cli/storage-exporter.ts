import { hasCode } from '@bundoc/shared/contract/app-error';
import { advanceStorage } from '../engine/started-storage.ts';
import type { StorageIdentity } from '../engine/storage-file.ts';
import type { KeyService, StorageCalls } from '../kms/port.ts';

/** BunKMS, as far as a command needs it, asked by the storage that the command works on. */
export interface StorageExporter extends Pick<KeyService, 'exportKey'> {
  readonly storage: StorageShown;
}

/** A storage as commands show it. */
export interface StorageShown {
  readonly id: string;
  /** The last that BunKMS has confirmed; undefined before the first start. */
  readonly generation: string | undefined;
}

/**
 * Exports keys by the storage's id and confirmed generation. Where BunKMS has confirmed none, or may have one
 * whose answer was lost, the command has a fresh one confirmed, as a start does.
 */
export async function storageExporter(
  identity: StorageIdentity,
  kms: Pick<StorageCalls, 'exportKey' | 'advanceStorage'>,
): Promise<StorageExporter> {
  const { id, generation } = await identity.read();
  const acting = async (refused?: string) => {
    const file = await identity.read();
    const isUsable = file.generation !== undefined && file.generation !== refused;
    if (isUsable) return { storage: id, generation: String(file.generation) };
    return await advanceStorage(identity, kms);
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
