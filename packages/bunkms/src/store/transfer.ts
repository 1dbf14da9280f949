import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import type { AuditDraft } from '../records/chain.ts';
import type { Installation } from '../records/installation.ts';
import type { KeyRecord, KeyVersionRecord } from '../records/key-record.ts';

/** An entry of a store. */
export type StoreEntry =
  | { readonly kind: 'installation'; readonly installation: Installation }
  | { readonly kind: 'record'; readonly record: AuditRecord }
  | { readonly kind: 'key'; readonly key: KeyRecord }
  | { readonly kind: 'version'; readonly version: KeyVersionRecord }
  | { readonly kind: 'token'; readonly token: TokenInfo };

/**
 * An entry to load into a new store: an entry of another store, or a new record, which gets its place in the
 * chain.
 */
export type LoadEntry = StoreEntry | { readonly kind: 'new-record'; readonly draft: AuditDraft };

/** A store as a whole, for backups. Errors of every method: see `KmsStore`. */
export interface TransferStore {
  /**
   * A snapshot of all entries, in batches, even while others write. First comes the installation, then the
   * audit records by `seq`. The keys follow by name, each with its versions, and then the tokens in the order
   * of their issue. The snapshot is that of the first batch. Until the iteration ends, it may block `scrub`.
   */
  readAll(): AsyncIterable<readonly StoreEntry[]>;

  /**
   * Fills an empty store as one write: until this resolves, and when it fails, the store stays empty. Other
   * writers wait, or fail with `storage_unavailable`. Unlocks the store with `chainKey`.
   *
   * @param entries an installation first, records in ascending order of `seq`, a key before its versions.
   * @param chainKey the one of that installation.
   * @returns false, with `entries` not begun, when the store is not empty.
   * @throws also what `entries` throws.
   */
  load(entries: AsyncIterable<readonly LoadEntry[]>, chainKey: KeyObject): Promise<boolean>;
}
