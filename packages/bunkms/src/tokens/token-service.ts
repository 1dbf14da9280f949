import { type KeyObject, randomUUID } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { defined } from '@bundoc/shared/contract/defined';
import {
  audienceOf,
  type Claims,
  type IssuedToken,
  type IssueToken,
  TOKEN_ISSUER,
  TOKEN_LENGTH_MAX,
  TOKEN_TTL_S_DEFAULT,
  type TokenInfo,
} from '@bundoc/shared/contract/tokens';
import type { Logger } from '@bundoc/shared/logs/logger';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { shareKeyOf } from '@bundoc/shared/shares/share-key';
import { SignJWT } from 'jose';
import type { Caller } from '../records/caller.ts';
import {
  authenticToken,
  familyOfIssue,
  revocationDraft,
  type StoredToken,
  tokenFault,
  tokenIssueDraft,
} from '../records/token-record.ts';
import type { PageQuery } from '../store/page.ts';
import type { TokenStore } from '../store/tokens.ts';
import { IssuedFamilies } from './issued-families.ts';
import { countIssuers, ISSUERS_MAX, type IssuedPage, isIssuedBy, listIssued } from './issued-tokens.ts';
import { issuesClientsAlone, requireIssuer } from './may-issue.ts';

export interface TokenServiceOptions {
  readonly store: TokenStore;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly signingKey: KeyObject;
  readonly kid: string;
  /** Key of the audit chain: a token is valid only as the chain describes it. */
  readonly chainKey: KeyObject;
}

/** A part of the list of tokens, in order. */
export interface TokenList {
  readonly tokens: readonly TokenInfo[];
  /** Ids of the tokens that contradict the audit chain. */
  readonly damaged: readonly string[];
  /** The cursor of the next part; undefined at the end. */
  readonly next: string | undefined;
}

const CASCADE_INCOMPLETE =
  'audit records of tokens were changed: tokens that they led to may stay valid; "bunkms audit verify" names those once the records are restored';

/**
 * Issues, renews, lists and revokes tokens (Ed25519 JWT). The store keeps the claims of tokens, never the
 * tokens. Each change and its audit record are one transaction, and a token is returned only once that is
 * durable.
 */
export class TokenService {
  readonly #options: TokenServiceOptions;

  constructor(options: TokenServiceOptions) {
    this.#options = options;
  }

  /**
   * Issues a token of a new family. The request has passed `issueTokenSchema`. Tokens from an issuer that may
   * issue only client tokens expire with the issuer at the latest.
   *
   * @param issuer claims of the issuing token; the new token must be within its `may_issue`. Undefined for
   *   the command line.
   * @throws AppError `forbidden`; `unauthenticated` when the issuer was revoked; `invalid_request` when the
   *   token would not fit into a header.
   */
  async issue(request: IssueToken, caller: Caller, issuer?: Claims): Promise<IssuedToken> {
    const [firstScope] = request.scope;
    if (firstScope === undefined) throw new AppError('invalid_request');
    const lifeS = request.ttl_s ?? defaultLifeS(request, issuer);
    const nowS = Math.floor(this.#options.clock.now() / 1000);
    if (issuer !== undefined) {
      requireIssuer(issuer, { ...request, ttl_s: lifeS });
      if (request.may_issue !== undefined) await this.#requireShortLine(issuer);
    }
    const jti = randomUUID();
    const { token, info } = await this.#make({
      jti,
      root: rootOfIssue(issuer) ?? jti,
      family: jti,
      ...defined({ issuer: issuer?.jti }),
      sub: request.sub,
      typ: request.typ,
      aud: audienceOf(firstScope),
      scope: [...new Set(request.scope)],
      keys: [...new Set(request.keys)],
      projects: [...new Set(request.projects)],
      ...defined({ may_issue: request.may_issue }),
      lifeS: issuer !== undefined && issuesClientsAlone(issuer) ? Math.min(lifeS, issuer.exp - nowS) : lifeS,
    });
    const draft = tokenIssueDraft({ caller, time: this.#now(), action: 'token.issue' }, info);
    if (!(await this.#options.store.insertToken(info, draft)))
      throw new AppError('unauthenticated', { tokenFault: 'revoked' });
    return { token, ...info };
  }

  /**
   * Renews a service token for BunKMS: the same claims, life, family and issuer, and a new `jti`. So a
   * service stays connected without help, and a revocation of its first token still ends it.
   *
   * @throws AppError `forbidden` for other tokens, `unauthenticated` when it was revoked, or its row
   *   contradicts the audit chain.
   */
  async renew(claims: Claims, caller: Caller): Promise<IssuedToken> {
    if (claims.typ !== 'service')
      throw new AppError('forbidden', { detail: 'only service tokens are renewed' });
    const stored = await this.#options.store.findToken(claims.jti);
    const parent = stored && this.#infoIfAuthentic(stored);
    if (parent === undefined) throw new AppError('unauthenticated', { tokenFault: 'revoked or unknown' });
    const { token, info } = await this.#make({
      jti: randomUUID(),
      root: shareKeyOf(claims).subject,
      family: parent.family,
      ...defined({ issuer: parent.issuer }),
      sub: claims.sub,
      typ: claims.typ,
      aud: claims.aud,
      scope: claims.scope,
      keys: claims.keys,
      projects: claims.projects,
      ...defined({ may_issue: claims.may_issue }),
      lifeS: claims.exp - claims.iat,
    });
    const draft = tokenIssueDraft({ caller, time: this.#now(), action: 'token.renew' }, info);
    if (!(await this.#options.store.renewToken(claims.jti, info, draft)))
      throw new AppError('unauthenticated', { tokenFault: 'revoked' });
    return { token, ...info };
  }

  /**
   * Revokes a token and its family at once. Idempotent.
   *
   * With `cascade`, also all tokens that those issued, directly or indirectly, in batches. The token itself
   * is revoked first, so no new token escapes. After an interruption, another call revokes the rest.
   *
   * @param options.within the family of a caller that may revoke only what it has issued, directly or
   *   indirectly.
   * @returns how many further families were revoked.
   * @throws AppError `token_not_found`, also for a token that is not `within`, and for one whose audit record
   *   was changed: such a token is refused anyway. `integrity_error` when the record of an issued token was
   *   changed; then all tokens that are found without that record are revoked.
   */
  async revoke(
    jti: string,
    caller: Caller,
    options: { readonly cascade?: boolean; readonly within?: string | undefined } = {},
  ): Promise<number> {
    const { store, chainKey } = this.#options;
    const issued = (await store.findToken(jti))?.issued;
    if (issued === undefined || familyOfIssue(chainKey, jti, issued) === undefined)
      throw new AppError('token_not_found');
    const { within } = options;
    if (within !== undefined && !(await isIssuedBy(this.#options, within, jti)))
      throw new AppError('token_not_found');
    const root = namedBy(issued);
    const time = this.#now();
    const cascade = options.cascade === true;
    await store.revokeFamilies([revocationDraft(caller, time, root, cascade ? { cascade } : {})]);
    if (!cascade) return 0;
    const families = new IssuedFamilies({ store, chainKey }, root.family);
    const { count, isComplete } = await families.end(time, (issue) =>
      revocationDraft(caller, time, namedBy(issue), { cascade: jti }),
    );
    if (!isComplete) throw new AppError('integrity_error', { detail: CASCADE_INCOMPLETE });
    return count;
  }

  /**
   * Tokens, including expired and revoked ones: all in the order of their issue, or those that a family has
   * issued, directly or indirectly, each followed by those that it has issued.
   *
   * @param within that family.
   */
  async list(page: PageQuery<string>, within?: string): Promise<TokenList> {
    const { items, next } =
      within === undefined ? await this.#listAll(page) : await listIssued(this.#options, within, page);
    const tokens: TokenInfo[] = [];
    const damaged: string[] = [];
    for (const item of items) {
      const token = this.#infoIfAuthentic(item);
      if (token === undefined) damaged.push(item.jti);
      else tokens.push(token);
    }
    return { tokens, damaged, next };
  }

  async #listAll(page: PageQuery<string>): Promise<IssuedPage> {
    const { items, more } = await this.#options.store.listTokens(page);
    return { items, next: more ? items.at(-1)?.jti : undefined };
  }

  /** @throws AppError `forbidden` when too many issuers are above a token that would issue others. */
  async #requireShortLine({ jti }: Claims): Promise<void> {
    if ((await countIssuers(this.#options, jti)) + 1 > ISSUERS_MAX)
      throw new AppError('forbidden', {
        detail: `a token that issues others has at most ${ISSUERS_MAX} issuers above it`,
      });
  }

  /** @returns undefined, and logs why, when the row must not be trusted. */
  #infoIfAuthentic(stored: StoredToken): TokenInfo | undefined {
    const { chainKey, logger } = this.#options;
    const token = authenticToken(chainKey, stored);
    if (token === undefined)
      logger.error({ jti: stored.jti, reason: tokenFault(chainKey, stored) }, 'a stored token is damaged');
    return token;
  }

  async #make(
    token: Omit<TokenInfo, 'issued_at' | 'expires_at' | 'revoked_at'> & {
      lifeS: number;
      root: string;
    },
  ): Promise<{
    token: string;
    info: TokenInfo;
  }> {
    const { clock, kid, signingKey } = this.#options;
    const iat = Math.floor(clock.now() / 1000);
    const exp = iat + token.lifeS;
    const { lifeS: _, root, ...said } = token;
    const { jti, sub, typ, aud, scope, keys, projects, may_issue } = said;
    const claims = {
      iss: TOKEN_ISSUER,
      aud,
      sub,
      typ,
      scope: scope.join(' '),
      keys,
      projects,
      ...defined({ may_issue }),
      jti,
      root,
      iat,
      exp,
    };
    const header = { alg: 'EdDSA', typ: 'JWT', kid };
    const signed = await new SignJWT(claims).setProtectedHeader(header).sign(signingKey);
    if (signed.length > TOKEN_LENGTH_MAX)
      throw new AppError('invalid_request', {
        detail: `the token would have ${signed.length} characters, and at most ${TOKEN_LENGTH_MAX} are allowed: name fewer keys or projects`,
      });
    return { token: signed, info: { ...said, issued_at: isoOf(iat), expires_at: isoOf(exp) } };
  }

  #now(): string {
    return new Date(this.#options.clock.now()).toISOString();
  }
}

/**
 * The root of a token that `issuer` issues. It is the issuer's root, so that a tenant cannot get more shares
 * by issuing tokens. An issuer for all projects is an operator, who issues to tenants: each of those tokens
 * has a separate share.
 */
function rootOfIssue(issuer: Claims | undefined): string | undefined {
  if (issuer === undefined || issuer.may_issue?.projects.includes('*') === true) return undefined;
  return shareKeyOf(issuer).subject;
}

/** The default life of the token type, limited by what the issuer may issue. */
function defaultLifeS({ typ }: IssueToken, issuer: Claims | undefined): number {
  return Math.min(TOKEN_TTL_S_DEFAULT[typ], issuer?.may_issue?.ttl_s ?? Number.POSITIVE_INFINITY);
}

function namedBy({ detail = {} }: AuditRecord) {
  return {
    jti: String(detail['token']),
    family: String(detail['family']),
    sub: String(detail['sub']),
    expires_at: String(detail['expires_at']),
  };
}

function isoOf(seconds: number): string {
  return new Date(seconds * 1000).toISOString();
}
