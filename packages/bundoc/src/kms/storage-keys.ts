import { hasCode } from '@bundoc/shared/contract/app-error';
import type { AuditReceipt, DestroyReceipt } from '@bundoc/shared/contract/keys';
import type { DeletionIntent, UnfinishedDeletion } from '@bundoc/shared/contract/storages';
import type { ActingStorage, KeyService, KeyShredder, LeasedKey, StorageCalls } from './port.ts';

/** The identity of this storage, and its confirmed generation. */
export interface ConfirmedGeneration {
  /**
   * @throws AppError `kms_unavailable` until BunKMS has confirmed a generation; `storage_superseded` after it
   *   has refused it.
   */
  acting(): ActingStorage;
  /**
   * Handles BunKMS's refusal of `acting`: another node may have advanced the generation since.
   *
   * @returns the storage for the next attempt.
   * @throws AppError `storage_superseded`, `kms_unavailable`.
   */
  refused(acting: ActingStorage): Promise<ActingStorage>;
}

/**
 * Maximum number of times that one call follows other nodes: to a recorded generation, and from there to one
 * that another node has not recorded yet.
 */
const CATCH_UPS_MAX = 2;

/** BunKMS on behalf of one storage, in its current generation. */
export class StorageKeys implements KeyService, KeyShredder {
  readonly #calls: StorageCalls;
  readonly #generation: ConfirmedGeneration;

  constructor(calls: StorageCalls, generation: ConfirmedGeneration) {
    this.#calls = calls;
    this.#generation = generation;
  }

  exportKey(name: string, version?: number): Promise<LeasedKey> {
    return this.#act((acting) => this.#calls.exportKey(name, version, acting));
  }

  createKey(name: string): Promise<boolean> {
    return this.#act((acting) => this.#calls.createKey(name, acting));
  }

  claimKey(name: string): Promise<void> {
    return this.#act((acting) => this.#calls.claimKey(name, acting));
  }

  /** The call does not name the storage, but a superseded storage must not rotate keys. */
  rotateKey(name: string, version: number): Promise<void> {
    return this.#act(() => this.#calls.rotateKey(name, version));
  }

  intendDeletion(name: string, client: string): Promise<DeletionIntent> {
    return this.#act((acting) => this.#calls.intendDeletion(name, client, acting));
  }

  shredKey(name: string, receipt: AuditReceipt): Promise<DestroyReceipt> {
    return this.#act((acting) => this.#calls.shredKey(name, receipt, acting));
  }

  contentRemoved(name: string): Promise<void> {
    return this.#act((acting) => this.#calls.contentRemoved(name, acting));
  }

  unfinishedDeletions(): Promise<readonly UnfinishedDeletion[]> {
    return this.#act((acting) => this.#calls.unfinishedDeletions(acting));
  }

  async #act<T>(call: (acting: ActingStorage) => Promise<T>): Promise<T> {
    let acting = this.#generation.acting();
    for (let tries = 0; ; tries++) {
      try {
        return await call(acting);
      } catch (error) {
        if (!hasCode(error, 'storage_superseded') || tries === CATCH_UPS_MAX) throw error;
        acting = await this.#generation.refused(acting);
      }
    }
  }
}
