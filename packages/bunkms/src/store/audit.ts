import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { AuditDraft, ChainHead } from '../records/chain.ts';
import type { KeyVersionStamp } from './keys.ts';
import type { BackwardPage, FilteredPage, PageQuery } from './page.ts';
import type { StorageStamp } from './storages.ts';

/** Conditions that must hold when an audit record is appended; otherwise it is rejected. */
export interface AuditCondition {
  /** The `jti` of a token that must be active (`findActiveTokenFamily`). */
  readonly jti?: string | undefined;
  /** A key that must be as it was read. */
  readonly key?: KeyVersionStamp | undefined;
  readonly storage?: StorageStamp | undefined;
  /** Number of the record that must still be the latest of the KEKs. */
  readonly kekRecord?: number | undefined;
  /** A KEK with which nothing may be wrapped. */
  readonly requireUnusedKek?: string | undefined;
  /** A KEK that every service which is up at `now` must have announced (`ClusterStore.announce`). */
  readonly kekHeldByAllNodes?: { readonly kekId: string; readonly now: string } | undefined;
}

/** Why a record was rejected. */
export type RejectReason =
  | 'token_revoked'
  | 'key_changed'
  | 'storage_changed'
  | 'keks_changed'
  | 'kek_in_use'
  | 'kek_not_held';

/** All given filters must match. Times are ISO 8601 in UTC, `from` inclusive, `to` exclusive. */
export interface AuditQuery extends PageQuery<number> {
  readonly severity?: AuditRecord['severity'] | undefined;
  readonly key?: string | undefined;
  readonly actor?: string | undefined;
  readonly from?: string | undefined;
  readonly to?: string | undefined;
  /** False leaves out records of uses of keys (`USE_ACTIONS`). */
  readonly uses?: false | undefined;
  /** False leaves out all frequent records (`BULK_ACTIONS`), without reading them. */
  readonly bulk?: false | undefined;
}

/** A page of releases. `before` is the `next` of the page before; absent for the first. */
export interface ReleasePageQuery {
  readonly before?: number | undefined;
  readonly limit: number;
}

/** Actions of records of uses of keys inside the service. A rewrap of versions is a `key.rewrap`, too. */
export const INNER_USE_ACTIONS: readonly string[] = ['key.encrypt', 'key.decrypt', 'key.rewrap'];
/** Actions of records of uses of keys. */
export const USE_ACTIONS: readonly string[] = ['key.export', ...INNER_USE_ACTIONS];
/** Actions of frequent records, none of which changes anything: uses and reads of keys, and rewrappings. */
export const BULK_ACTIONS: readonly string[] = [
  ...USE_ACTIONS,
  'kek.rewrap',
  'key.read',
  'key.list',
  'key.leases',
];

/**
 * The audit chain. Appending fails with `storage_unavailable` before `unlock`. Errors of every method: see
 * `KmsStore`.
 */
export interface AuditStore {
  /**
   * Appends records in this order.
   *
   * @param conditions for each record, if given, what must hold, checked in the same transaction. So in the
   * chain no release follows the revocation of its token, or the disabling or destruction of its key.
   * @returns for each record its place in the chain, or why it was rejected.
   */
  appendAudit(
    records: readonly AuditDraft[],
    conditions?: readonly (AuditCondition | undefined)[],
  ): Promise<(AuditReceipt | RejectReason)[]>;

  /**
   * Appends a record of no key, unless the chain has one with the same action and detail. @returns whether it
   * was appended.
   */
  appendAuditOnce(record: AuditDraft): Promise<boolean>;

  /**
   * Records in ascending order of `seq`, which is the cursor; without one from the lowest number on. Pages
   * are full while there are more, unless `severity`, `actor`, `from` or `to` filters them.
   */
  listAudit(query: AuditQuery): Promise<FilteredPage<AuditRecord, number>>;

  /**
   * Records of allowed exports of a key, newest first, back to the first record of that key that is older
   * than `from`. Looks at a bounded number of records: a page may have fewer than `limit` items, or none, and
   * still have a `next`.
   */
  listExports(key: string, from: string, page: ReleasePageQuery): Promise<BackwardPage<AuditRecord>>;

  /** As {@link listExports}, for allowed uses inside the service (`INNER_USE_ACTIONS`). */
  listInnerUses(key: string, from: string, page: ReleasePageQuery): Promise<BackwardPage<AuditRecord>>;

  /** The newest records of a key, newest first; at most `limit`. */
  newestRecords(key: string, limit: number): Promise<readonly AuditRecord[]>;

  /** The place of the last record, or the genesis of an empty chain. */
  auditHead(): Promise<ChainHead>;
}
