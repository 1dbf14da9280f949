import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt, KeyDetail, KeyInfo } from '@bundoc/shared/contract/keys';
import type { Jwks, TokenInfo } from '@bundoc/shared/contract/tokens';
import type { AuditDraft, ChainHead } from '../audit/chain.ts';

/** A KEK that the store has been used with: its id and check value, both hex. Reveals nothing of the KEK. */
export interface KnownKek {
  readonly id: string;
  readonly checkValue: string;
}

/** A public key as the JWKS gives it. */
export type PublicJwk = Jwks['keys'][number];

/** What the first start makes, once and for good. */
export interface Installation {
  readonly createdAt: string;
  readonly chainKeyWrapped: Uint8Array;
  readonly signingSeedWrapped: Uint8Array;
  /** In clear and not authenticated: told to people (`bunkms status`), never trusted. */
  readonly signingKey: PublicJwk;
  readonly keks: readonly KnownKek[];
}

/** A stored key in one of its versions: what may be told about it (`version` and `kcv` are of that version), and the wrapped DEK. */
export interface KeyRecord {
  readonly info: KeyInfo;
  readonly wrapped: Uint8Array;
}

/** A further version of a key. */
export interface NewKeyVersion {
  readonly keyId: string;
  readonly version: number;
  readonly kcv: string;
  readonly wrapped: Uint8Array;
  readonly createdAt: string;
}

/** Keyset paging: at most `limit` entries behind the entry `after` (from the start without it). */
export interface PageQuery<Cursor> {
  readonly after?: Cursor | undefined;
  readonly limit: number;
}

export interface Page<T> {
  readonly items: readonly T[];
  /** True when more follow behind the last item. */
  readonly more: boolean;
}

/** All that is given must hold; times are ISO 8601 in UTC, `from` inclusive, `to` exclusive. */
export interface AuditQuery extends PageQuery<number> {
  readonly severity?: AuditRecord['severity'] | undefined;
  readonly key?: string | undefined;
  readonly actor?: string | undefined;
  readonly from?: string | undefined;
  readonly to?: string | undefined;
  /** False leaves out records of exports, without a walk over them. */
  readonly exports?: false | undefined;
}

/** Records from the newest back; `next` is where to go on, below that `seq`, while there may be more. */
export interface BackwardPage {
  readonly items: readonly AuditRecord[];
  readonly next?: number;
}

/**
 * Where BunKMS keeps everything. `store/conformance.ts` holds every implementation to this text.
 *
 * **Trust**: none. The store sees wrapped keys and the audit chain; the one key it is given is the chain key
 * ({@link unlock}), because the head of the chain must be read and advanced in one transaction.
 *
 * **Durability**: a resolved write has reached the disk (or a quorum); it survives `kill -9` and power loss. A change and its
 * audit record are one transaction. Several processes may write at once; each write is serialised.
 *
 * **Errors**, of every method: AppError `storage_unavailable` when the storage fails or does not answer in time,
 * `disk_full`, and `overloaded` when too many calls wait already. A write that failed with `storage_unavailable` may
 * nevertheless have happened. Methods that write records also throw `storage_unavailable` before {@link unlock}.
 */
export interface KmsStore extends AsyncDisposable {
  /** The installation, or undefined before the first start. */
  readInstallation(): Promise<Installation | undefined>;

  /**
   * Records the installation and the first audit record, unless there is an installation.
   *
   * @returns false when another process was first; nothing was changed then.
   */
  initialise(installation: Installation, chainKey: KeyObject, record: AuditDraft): Promise<boolean>;

  /** Gives the key of the audit chain, which every write of records needs. Kept in memory only. */
  unlock(chainKey: KeyObject): Promise<void>;

  /** Remembers a further KEK. @returns false, with nothing changed, when a KEK of that id is known already. */
  addKek(kek: KnownKek, record: AuditDraft): Promise<boolean>;

  /** @throws AppError `KEY_EXISTS` when the name is taken; nothing is written then. */
  insertKey(key: KeyRecord, record: AuditDraft): Promise<void>;

  /**
   * The key of that name in that version, the current one without it; undefined when there is no such key, or it never had
   * that version. All of the record is of one moment, whoever rotates meanwhile.
   *
   * Whether the bytes unwrap is not the store's to know. A version that the key must have, but whose record is lost, is
   * given with an empty `kcv` and no bytes, which unwrap nowhere: it is damaged, and not unknown.
   */
  findKey(name: string, version?: number): Promise<KeyRecord | undefined>;

  /** The key of that name with the versions that there are records of, in ascending order; undefined when there is none. */
  describeKey(name: string): Promise<KeyDetail | undefined>;

  /**
   * Adds a version to a key and makes it the current one, in the same transaction as the check that the current one is the
   * version before it. So of several writers that add the same version, one succeeds.
   *
   * @returns false, with nothing written, when another version is current or there is no key of that id.
   */
  addKeyVersion(version: NewKeyVersion, record: AuditDraft): Promise<boolean>;

  /** Keys in the order of their names, only those that one of `globs` matches. */
  listKeys(globs: readonly string[], page: PageQuery<string>): Promise<Page<KeyInfo>>;

  insertToken(token: TokenInfo, record: AuditDraft): Promise<void>;

  /**
   * Inserts `token` as the renewal of `parentJti`, in the same transaction as the check that the parent is known and not
   * revoked, so that no renewal escapes a revocation of its family.
   *
   * @returns false, with nothing written, when the parent is unknown or revoked.
   */
  renewToken(parentJti: string, token: TokenInfo, record: AuditDraft): Promise<boolean>;

  findToken(jti: string): Promise<TokenInfo | undefined>;

  /** Tokens in the order of their issue; the cursor is a `jti`, an unknown one gives an empty page. */
  listTokens(page: PageQuery<string>): Promise<Page<TokenInfo>>;

  /** Revokes every token of a family that is not revoked yet. From then on each process sees it. */
  revokeFamily(family: string, revokedAt: string, record: AuditDraft): Promise<void>;

  /**
   * Revoked tokens that expire at `time` or later, in the order of their issue; the cursor is a `jti`, an unknown one gives an
   * empty page.
   */
  listRevoked(time: string, page: PageQuery<string>): Promise<Page<TokenInfo>>;

  /**
   * Forgets at most `limit` tokens that expired before `time`, of families of which every token did: a family stays
   * revocable by any of its tokens. The record is appended with their number as `detail.count`, unless there are none.
   *
   * @returns how many.
   */
  pruneTokens(time: string, limit: number, record: AuditDraft): Promise<number>;

  /**
   * Appends records, all or none, in this order.
   *
   * @param tokens for each record, if given, the `jti` of a token in whose name it lets something happen: the record is left
   * out when that token is unknown or revoked. Decided in the same transaction, so that in the chain no release follows
   * the revocation of its token.
   * @returns their places in the chain; undefined for those that were left out.
   */
  appendAudit(
    records: readonly AuditDraft[],
    tokens?: readonly (string | undefined)[],
  ): Promise<(AuditReceipt | undefined)[]>;

  /** Appends a record unless the chain holds one with the same action and detail. @returns whether it was appended. */
  appendAuditOnce(record: AuditDraft): Promise<boolean>;

  /** Records in ascending order of `seq`; the cursor is a `seq`. */
  listAudit(query: AuditQuery): Promise<Page<AuditRecord>>;

  /**
   * Records of allowed exports of a key, newest first, back to the first record of that key that is older than `from`.
   * Looks at a bounded number of records, so a page may hold fewer than `limit`, or none, and still have a `next`.
   *
   * @param page `before` is the `next` of the page before.
   */
  listExports(
    key: string,
    from: string,
    page: { readonly before?: number | undefined; readonly limit: number },
  ): Promise<BackwardPage>;

  /** The last record's place, or the genesis of an empty chain. */
  auditHead(): Promise<ChainHead>;

  /** How many keys and tokens there are. */
  counts(): Promise<{ readonly keys: number; readonly tokens: number }>;

  /** Proves that writing works, by a durable write that changes nothing that matters. */
  probe(): Promise<void>;

  /** Finishes what was asked before and lets go of the storage. Idempotent; later calls fail with `storage_unavailable`. */
  close(): Promise<void>;
}

/** The methods of the port that reach the storage, as a synchronous implementation has them. */
export type StoreOperations = {
  [Name in Exclude<keyof KmsStore, 'close' | typeof Symbol.asyncDispose>]: (
    ...args: Parameters<KmsStore[Name]>
  ) => Awaited<ReturnType<KmsStore[Name]>>;
};
