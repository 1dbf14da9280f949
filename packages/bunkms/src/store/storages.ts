import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { NamedKey } from '../records/key-record.ts';
import type { ReleasePageQuery } from './audit.ts';
import type { BackwardPage, Page, PageQuery } from './page.ts';

/** A storage of Bundoc as it was read. */
export interface StorageStamp {
  readonly id: string;
  /** Number of its latest record; undefined when there was none. */
  readonly seq: number | undefined;
  /** After this record, no key must have been released to the storage. */
  readonly unreleasedSince?: number | undefined;
}

/** Storages of Bundoc and the keys that they hold. Errors of every method: see `KmsStore`. */
export interface StorageStore {
  /**
   * The latest record of the state of a storage (`STORAGE_ACTIONS`), found by an index; undefined when there
   * is none. Not authenticated.
   */
  storageRecord(id: string): Promise<AuditRecord | undefined>;

  /** Ids of the storages that have such a record, in the order of the database. Found by an index. */
  listStorages(page: PageQuery<string>): Promise<Page<string>>;

  /** As `listExports`, for the keys that were released to a storage. */
  listStorageExports(
    storage: string,
    from: string,
    page: ReleasePageQuery,
  ): Promise<BackwardPage<AuditRecord>>;

  /**
   * Keys, with their current version, whose holder is this storage and has a deletion intent, by name.
   * Includes destroyed keys whose content is not removed yet. Found by an index.
   */
  listDeletions(holder: string, page: PageQuery<string>): Promise<Page<NamedKey>>;

  /** How many keys {@link listDeletions} has, of all storages. */
  countDeletions(): Promise<number>;
}
