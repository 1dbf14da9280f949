import type { KeyObject } from 'node:crypto';
import type { AuditDraft } from '../records/chain.ts';
import type { Installation, WrappedSecrets } from '../records/installation.ts';

/** The installation, which the first start creates. Errors of every method: see `KmsStore`. */
export interface InstallationStore {
  /** @returns the installation; undefined before the first start. */
  readInstallation(): Promise<Installation | undefined>;

  /**
   * Stores the installation and the first audit record, unless an installation exists, and then unlocks the
   * store with `chainKey`.
   *
   * @returns false, with nothing written, when another process was first.
   * @throws AppError `sealed` when there is no installation, but something else: somebody removed it.
   */
  initialise(installation: Installation, chainKey: KeyObject, record: AuditDraft): Promise<boolean>;

  /**
   * Sets the key of the audit chain, which stays in memory. Before this, writing records and checking whether
   * a token is active fail.
   *
   * @throws only the errors of every method.
   */
  unlock(chainKey: KeyObject): Promise<void>;

  /**
   * Replaces the service's secrets by the same secrets, wrapped with the current KEK.
   *
   * @returns false, with nothing written, when the stored secrets are not `previous`, or another KEK is
   * current.
   * @throws AppError `storage_unavailable` before {@link unlock}.
   */
  replaceSecrets(secrets: WrappedSecrets, previous: WrappedSecrets, record: AuditDraft): Promise<boolean>;
}
