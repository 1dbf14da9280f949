import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditDraft } from '../records/chain.ts';
import type { KnownKek } from '../records/installation.ts';
import type { NamedKey } from '../records/key-record.ts';
import type { NamePage, Page, PageQuery } from './page.ts';

/** How many versions of keys, and secrets of the service, are wrapped with a KEK. */
export interface KekUse {
  readonly kekId: string;
  readonly versions: number;
  readonly secrets: number;
}

/** KEKs and what is wrapped with them. Errors of every method: see `KmsStore`. */
export interface KekStore {
  /**
   * Stores a further KEK with its record.
   *
   * @returns false, with nothing written, when a KEK of that id is known already.
   * @throws AppError `storage_unavailable` before `unlock`.
   */
  addKek(kek: KnownKek, record: AuditDraft): Promise<boolean>;

  /** The audit records of the state of the KEKs (`KEK_ACTIONS`), in their order. Not authenticated. */
  kekRecords(): Promise<readonly AuditRecord[]>;

  /** How much is wrapped with each KEK, by the wrapped bytes themselves, in the order of the KEKs' ids. */
  kekUses(): Promise<readonly KekUse[]>;

  /** How many versions of keys are wrapped with another KEK than this. Cheap when there are few. */
  countNotWrappedBy(kekId: string): Promise<number>;

  /**
   * Keys that have a version wrapped with this KEK, with all their versions, in the order of their ids. A
   * page with very many versions has fewer keys than `limit`, and then `more`.
   */
  listWrapped(kekId: string, page: PageQuery<string>): Promise<Page<NamedKey>>;

  /**
   * Keys that were ever wrapped with this KEK, if a reader may lack a newer wrapping. Such a reader exported
   * a version before the last rewrapping of the key, and not since. In the order of their names.
   *
   * Looks at a bounded number of records: a page may have fewer than `limit` names, or none, and still have a
   * `next`. A key with very many records may be listed without need.
   */
  listStaleCopies(kekId: string, page: PageQuery<string>): Promise<NamePage>;
}
