import { hash, type KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { type TokenInfo, tokenInfoSchema } from '@bundoc/shared/contract/tokens';
import type { Caller } from './caller.ts';
import type { AuditDraft } from './chain.ts';
import { isGenuine } from './chain-walk.ts';

/**
 * Actions of records that make a token known; each names it as `detail.token` and its family as
 * `detail.family`.
 */
export const TOKEN_ACTIONS = ['token.issue', 'token.renew', 'token.restore'] as const;

/**
 * Action of a record that revokes the family which it names as `detail.family`, until `detail.expires_at`.
 */
export const REVOCATION = 'token.revoke';

/**
 * What the store has on a token, all of one moment. Not to be believed before it is authenticated
 * (`records/token-record.ts`).
 */
export interface StoredToken {
  readonly jti: string;
  /** Undefined when it is lost. Its `revoked_at` says nothing by itself: the audit chain does. */
  readonly row: TokenInfo | undefined;
  /** The audit record of its issue ({@link TOKEN_ACTIONS}). */
  readonly issued: AuditRecord | undefined;
  /** The first audit record that revokes its family. */
  readonly revoked: AuditRecord | undefined;
}

/**
 * How a stored token is authenticated (`docs/formats/token-record.md`): the audit record of its issue carries
 * the token's digest, and the record of a revocation names the family that it ends. The chain is keyed, so a
 * row that was written by anybody else has no record, and a row that was set back to active is still revoked.
 */

/** Digest of what a token says, hex. Whether it is revoked is no part of it: that is asked of the chain. */
function digestOfToken(token: TokenInfo): string {
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

/** The record of a token's issue, which authenticates what the token is. It holds all that the row holds. */
export function tokenIssueDraft(
  { caller, time, action }: { readonly caller: Caller; readonly time: string; readonly action: IssueAction },
  token: TokenInfo,
): AuditDraft {
  const mayIssue = mayIssueText(token);
  return {
    ...caller,
    time,
    // A renewal gives nobody more than they had.
    severity: action === 'token.renew' ? 'INFO' : 'CRITICAL',
    action,
    outcome: 'allowed',
    detail: {
      token: token.jti,
      family: token.family,
      ...(token.issuer === undefined ? {} : { issuer: token.issuer }),
      sub: token.sub,
      typ: token.typ,
      aud: token.aud,
      scope: token.scope.join(' '),
      keys: token.keys.join(' '),
      projects: token.projects.join(' '),
      ...(mayIssue === undefined ? {} : { may_issue: mayIssue }),
      issued_at: token.issued_at,
      expires_at: token.expires_at,
      record: digestOfToken(token),
    },
  };
}

/** The record that ends a family. Events are made of it, so it names a token and its end as well. */
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

/** What may be wrong with a stored token, for the operator. */
export type TokenFault = 'lost' | 'not in the audit chain' | 'its audit record was changed' | 'changed';

/** Why the row of a token must not be believed; undefined when it is what its audit record says. */
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

/** A token as the audit chain has it; undefined when its row must not be believed. */
export function authenticToken(chainKey: KeyObject, stored: StoredToken): TokenInfo | undefined {
  const { row, revoked } = stored;
  if (row === undefined || tokenFault(chainKey, stored) !== undefined) return undefined;
  const { revoked_at: _, ...token } = row;
  return revoked === undefined ? token : { ...token, revoked_at: revoked.time };
}

/**
 * The family that a record of an issue puts this token into; undefined when this chain key did not make the
 * record.
 */
export function familyOfIssue(chainKey: KeyObject, jti: string, issued: AuditRecord): string | undefined {
  const family = issued.detail?.['family'];
  const isOfToken = issued.detail?.['token'] === jti && typeof family === 'string';
  return isOfToken && isGenuine(chainKey, issued) ? family : undefined;
}

/**
 * Whether a record says already what a revocation would. False when this chain key did not make it: then it
 * says nothing.
 */
export function isSaidBy(chainKey: KeyObject, { detail: said }: AuditDraft, record: AuditRecord): boolean {
  const { action, detail } = record;
  if (action !== REVOCATION || detail?.['family'] !== said?.['family']) return false;
  // That a token shall take with it what it issued is more than that it is revoked.
  if (said?.['cascade'] === true && detail?.['cascade'] !== true) return false;
  return isGenuine(chainKey, record);
}

/** Whether a record tells of the issue of a token. */
export function isIssue({ action, outcome }: AuditRecord): boolean {
  return outcome === 'allowed' && (TOKEN_ACTIONS as readonly string[]).includes(action);
}

/** The token that the record of its issue tells of, not revoked; undefined for a record of another form. */
export function tokenOfIssue({ detail = {} }: AuditRecord): TokenInfo | undefined {
  const { token: jti, may_issue: limit, record, ...rest } = detail;
  const words = (name: string) =>
    String(detail[name] ?? '')
      .split(' ')
      .filter((word) => word !== '');
  const token = tokenInfoSchema.safeParse({
    ...rest,
    jti,
    scope: words('scope'),
    keys: words('keys'),
    projects: words('projects'),
    ...(limit === undefined ? {} : { may_issue: readMayIssue(String(limit)) }),
  }).data;
  return token !== undefined && digestOfToken(token) === record ? token : undefined;
}

function readMayIssue(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** In a fixed order of the members. */
function mayIssueText({ may_issue: limit }: Pick<TokenInfo, 'may_issue'>): string | undefined {
  if (limit === undefined) return undefined;
  const { scopes, projects, keys, ttl_s } = limit;
  return JSON.stringify({ scopes, projects, keys, ttl_s });
}
