import { hash, type KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { defined } from '@bundoc/shared/contract/defined';
import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import type { Caller } from './caller.ts';
import type { AuditDraft } from './chain.ts';
import { isGenuine } from './chain-walk.ts';

/**
 * Actions of records that introduce a token; each names it as `detail.token` and its family as
 * `detail.family`.
 */
export const TOKEN_ACTIONS = ['token.issue', 'token.renew'] as const;

/** Action of a record that revokes the family in `detail.family`, until `detail.expires_at`. */
export const REVOCATION = 'token.revoke';

/** What the store has for a token, from one snapshot. It must be authenticated before use. */
export interface StoredToken {
  readonly jti: string;
  /** Undefined when it is lost. Its `revoked_at` is not authoritative: the audit chain is. */
  readonly row: TokenInfo | undefined;
  /** The audit record of its issue ({@link TOKEN_ACTIONS}). */
  readonly issued: AuditRecord | undefined;
  /** The first audit record that revokes its family. */
  readonly revoked: AuditRecord | undefined;
}

/**
 * The authentication of stored tokens (`docs/formats/token-record.md`). The audit record of an issue contains
 * the token's digest, and the record of a revocation names the revoked family. The chain is keyed, so a
 * forged row has no record, and a row that was reset to active is still revoked.
 */

/** Digest of the content of a token, hex. It excludes the revocation, which comes from the chain. */
export function digestOfToken(token: TokenInfo): string {
  const fields = [
    'bunkms/token/v1',
    token.jti,
    token.family,
    token.issuer ?? null,
    token.sub,
    token.typ,
    token.aud,
    token.scope,
    token.keys,
    token.projects,
    token.may_issue === undefined ? null : mayIssueText(token),
    token.issued_at,
    token.expires_at,
  ];
  return hash('sha256', JSON.stringify(fields), 'hex');
}

type IssueAction = (typeof TOKEN_ACTIONS)[number];

/** The record of a token's issue. It authenticates the token and contains everything that the row does. */
export function tokenIssueDraft(
  { caller, time, action }: { readonly caller: Caller; readonly time: string; readonly action: IssueAction },
  token: TokenInfo,
): AuditDraft {
  const mayIssue = mayIssueText(token);
  return {
    ...caller,
    time,
    // A renewal grants nothing new.
    severity: action === 'token.renew' ? 'INFO' : 'CRITICAL',
    action,
    outcome: 'allowed',
    detail: {
      token: token.jti,
      family: token.family,
      ...defined({ issuer: token.issuer }),
      sub: token.sub,
      typ: token.typ,
      aud: token.aud,
      scope: token.scope.join(' '),
      keys: token.keys.join(' '),
      projects: token.projects.join(' '),
      ...defined({ may_issue: mayIssue }),
      issued_at: token.issued_at,
      expires_at: token.expires_at,
      record: digestOfToken(token),
    },
  };
}

/** The record that revokes a family. Events come from it, so it also names a token and its expiry. */
export function revocationDraft(
  caller: Caller,
  time: string,
  token: Pick<TokenInfo, 'jti' | 'family' | 'sub' | 'expires_at'>,
  more: NonNullable<AuditDraft['detail']> = {},
): AuditDraft {
  return {
    ...caller,
    time,
    severity: 'CRITICAL',
    action: REVOCATION,
    outcome: 'allowed',
    detail: { token: token.jti, family: token.family, sub: token.sub, expires_at: token.expires_at, ...more },
  };
}

/** Faults of a stored token, for the operator. */
export type TokenFault = 'lost' | 'not in the audit chain' | 'its audit record was changed' | 'changed';

/** Why the row of a token must not be trusted; undefined when it matches its audit record. */
export function tokenFault(
  chainKey: KeyObject,
  { row, issued, revoked }: StoredToken,
): TokenFault | undefined {
  if (issued === undefined) return 'not in the audit chain';
  const records = revoked === undefined ? [issued] : [issued, revoked];
  if (records.some((record) => !isGenuine(chainKey, record))) return 'its audit record was changed';
  if (row === undefined) return 'lost';
  const isSame = issued.detail?.['record'] === digestOfToken(row);
  const isAsRevoked = (row.revoked_at !== undefined) === (revoked !== undefined);
  return isSame && isAsRevoked ? undefined : 'changed';
}

/** A token with its state from the audit chain; undefined when its row must not be trusted. */
export function authenticToken(chainKey: KeyObject, stored: StoredToken): TokenInfo | undefined {
  const { row, revoked } = stored;
  if (row === undefined || tokenFault(chainKey, stored) !== undefined) return undefined;
  const { revoked_at: _, ...token } = row;
  return revoked === undefined ? token : { ...token, revoked_at: revoked.time };
}

/** The family of this token from the record of its issue; undefined when the record is not genuine. */
export function familyOfIssue(chainKey: KeyObject, jti: string, issued: AuditRecord): string | undefined {
  const family = issued.detail?.['family'];
  const isOfToken = issued.detail?.['token'] === jti && typeof family === 'string';
  return isOfToken && isGenuine(chainKey, issued) ? family : undefined;
}

/** Whether a record already contains the effect of a revocation. False when the record is not genuine. */
export function matchesRecord(
  chainKey: KeyObject,
  { detail: said }: AuditDraft,
  record: AuditRecord,
): boolean {
  const { action, detail } = record;
  if (action !== REVOCATION || detail?.['family'] !== said?.['family']) return false;
  // A revocation with cascade does more than one without.
  if (said?.['cascade'] === true && detail?.['cascade'] !== true) return false;
  return isGenuine(chainKey, record);
}

/** Whether a record is of the issue of a token. */
export function isIssue({ action, outcome }: AuditRecord): boolean {
  return outcome === 'allowed' && (TOKEN_ACTIONS as readonly string[]).includes(action);
}

/** The text of `may_issue`, with members in a fixed order. */
function mayIssueText({ may_issue: limit }: Pick<TokenInfo, 'may_issue'>): string | undefined {
  if (limit === undefined) return undefined;
  const { scopes, projects, keys, ttl_s } = limit;
  return JSON.stringify({ scopes, projects, keys, ttl_s });
}
