import type { AuditStore } from './audit.ts';
import type { ClusterStore } from './cluster.ts';
import type { InstallationStore } from './installation.ts';
import type { KekStore } from './kek.ts';
import type { KeyStore } from './keys.ts';
import type { StorageStore } from './storages.ts';
import type { TokenStore } from './tokens.ts';
import type { TransferStore } from './transfer.ts';
import type { TrustStore } from './trust.ts';

/**
 * Everything that BunKMS stores. `store/conformance/` checks every implementation against this text.
 *
 * **Trust**: none. The store sees wrapped keys and the audit chain. It gets only one key, the chain key
 * (`unlock`), because one transaction must read and advance the head of the chain.
 *
 * **Durability**: a resolved write has reached the disk (or a quorum); it survives `kill -9` and power loss.
 * A change and its audit record are one transaction. Several processes may write at once; each write is
 * serialised.
 *
 * **Errors** of every method: AppError `storage_unavailable` when the storage fails, does not answer in time
 * or is closed, `disk_full`, and `overloaded` when too many calls wait already. A write that failed with
 * `storage_unavailable` may nevertheless have happened. A write fails with `sealed`, and is rolled back, when
 * a row was not written, a trigger or view would run, or the chain lacks a record that this process knows.
 */
export interface KmsStore
  extends InstallationStore,
    KeyStore,
    TokenStore,
    AuditStore,
    KekStore,
    StorageStore,
    ClusterStore,
    TransferStore,
    TrustStore,
    AsyncDisposable {
  /** How many keys and tokens there are. */
  counts(): Promise<{ readonly keys: number; readonly tokens: number }>;

  /** Proves that writing works, by a durable write without visible effect. */
  probe(): Promise<void>;

  /**
   * Finishes pending calls and closes the storage. Idempotent; later calls fail with `storage_unavailable`.
   */
  close(): Promise<void>;
}

/** The methods of the port that are one step in the storage. */
export type OperationName = Exclude<
  keyof KmsStore,
  keyof TransferStore | 'close' | typeof Symbol.asyncDispose
>;

/** {@link OperationName} as a synchronous implementation has them. */
export type StoreOperations = {
  [Name in OperationName]: (...args: Parameters<KmsStore[Name]>) => Awaited<ReturnType<KmsStore[Name]>>;
};
