import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import type { AuditDraft } from '../records/chain.ts';
import type { StoredToken } from '../records/token-record.ts';
import type { Page, PageQuery } from './page.ts';

/** Where to read records of issue: of the tokens of one family, or by one issuer, after that number. */
export interface IssuePlace {
  readonly of: string;
  readonly after: number;
}

/** The place of the record that revokes a family, and whether this call has appended it. */
export interface RevokedFamily {
  readonly place: AuditReceipt;
  readonly isNew: boolean;
}

/** A position among the revocations, which are ordered by the expiry of what they revoke. */
export interface RevocationPlace {
  readonly expiresAt: string;
  readonly seq: number;
}

/**
 * Tokens. One is active while it has a row, the record of its issue is genuine, and no record revokes its
 * family. Writes fail with `storage_unavailable` before `unlock`. Errors of every method: see `KmsStore`.
 */
export interface TokenStore {
  /**
   * Stores a token with the record of its issue, and checks in the same transaction that its `issuer`, if it
   * has one, is active.
   *
   * @returns false, with nothing written, when the issuer is not active.
   */
  insertToken(token: TokenInfo, record: AuditDraft): Promise<boolean>;

  /**
   * Stores `token` as the renewal of `parentJti`, and checks in the same transaction that the parent is
   * active. So no renewal escapes a revocation of its family.
   *
   * @returns false, with nothing written, when the parent is not active.
   */
  renewToken(parentJti: string, token: TokenInfo, record: AuditDraft): Promise<boolean>;

  /**
   * What is stored of a token; undefined when there is neither a row nor a record of its issue. Not
   * authenticated.
   */
  findToken(jti: string): Promise<StoredToken | undefined>;

  /** {@link findToken} for many tokens, from one snapshot, in this order, without those that do not exist. */
  findTokens(jtis: readonly string[]): Promise<readonly StoredToken[]>;

  /**
   * The family of an active token, by the record of its issue; undefined for any other token. It is cheap,
   * because every request calls it.
   *
   * @throws AppError `storage_unavailable` before `unlock`.
   */
  findActiveTokenFamily(jti: string): Promise<string | undefined>;

  /**
   * Tokens that have a row, in the order of their issue. The cursor is a `jti`; an unknown one gives an empty
   * page.
   */
  listTokens(page: PageQuery<string>): Promise<Page<StoredToken>>;

  /**
   * Appends revocations and marks the rows. Each revocation ends the family that its `detail` names. Families
   * that a genuine record revokes already are left out, unless the new record is the first that says
   * `cascade: true`. From then on every process sees the revocation.
   *
   * @returns for each family the record that revokes it.
   */
  revokeFamilies(records: readonly AuditDraft[]): Promise<readonly RevokedFamily[]>;

  /**
   * Records of the issue of tokens, found by their family or their issuer. Not authenticated.
   *
   * @returns for each place at most `limit` of them, in the order of `seq`.
   */
  listIssues(
    by: 'family' | 'issuer',
    places: readonly IssuePlace[],
    limit: number,
  ): Promise<readonly (readonly AuditRecord[])[]>;

  /** Revocations of tokens that expire at `time` or later, from the audit chain only, ordered by expiry. */
  listRevoked(time: string, page: PageQuery<RevocationPlace>): Promise<Page<AuditRecord>>;

  /**
   * Removes at most `limit` tokens that expired before `time`, from families whose tokens have all expired:
   * until then, a family stays revocable by any of its tokens. Unless there are none, it appends the record,
   * with their number as `detail.count`.
   *
   * @returns how many.
   */
  pruneTokens(time: string, limit: number, record: AuditDraft): Promise<number>;
}
