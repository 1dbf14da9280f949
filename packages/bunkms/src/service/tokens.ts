import { type KeyObject, randomUUID } from 'node:crypto';
import type { Clock } from '@bundoc/shared/clock';
import {
  audienceOf,
  type Claims,
  type IssuedToken,
  type IssueToken,
  TOKEN_ISSUER,
  TOKEN_TTL_S_DEFAULT,
  type TokenInfo,
} from '@bundoc/shared/contract/tokens';
import { AppError } from '@bundoc/shared/errors';
import { createSigner } from 'fast-jwt';
import type { Caller } from '../audit/caller.ts';
import type { AuditDraft } from '../audit/chain.ts';
import type { KmsStore, Page, PageQuery } from '../store/port.ts';

export interface TokenServiceOptions {
  readonly store: KmsStore;
  readonly clock: Clock;
  readonly signingKey: KeyObject;
  readonly kid: string;
}

/**
 * Issues, renews, lists and revokes tokens (Ed25519 JWT). The store keeps what tokens say, never the tokens. Each
 * change and its audit record are one transaction, and a token is handed out only once that is durable.
 */
export class TokenService {
  readonly #store: KmsStore;
  readonly #clock: Clock;
  readonly #sign: (claims: object) => string;

  constructor({ store, clock, signingKey, kid }: TokenServiceOptions) {
    this.#store = store;
    this.#clock = clock;
    this.#sign = createSigner({
      key: String(signingKey.export({ format: 'pem', type: 'pkcs8' })),
      algorithm: 'EdDSA',
      kid,
    });
  }

  /** Issues a token of a new family. The request has passed `issueTokenSchema`. */
  async issue(request: IssueToken, caller: Caller): Promise<IssuedToken> {
    const [firstScope] = request.scope;
    if (firstScope === undefined) throw new AppError('invalid_request');
    const jti = randomUUID();
    const { token, info } = this.#make({
      jti,
      family: jti,
      sub: request.sub,
      typ: request.typ,
      aud: audienceOf(firstScope),
      scope: [...new Set(request.scope)],
      keys: [...new Set(request.keys)],
      projects: [...new Set(request.projects)],
      lifeS: request.ttl_s ?? TOKEN_TTL_S_DEFAULT[request.typ],
    });
    await this.#store.insertToken(info, this.#draft('token.issue', caller, describe(info)));
    return { token, ...info };
  }

  /**
   * Renews a service token for BunKMS: the same claims and length of life, a new `jti`, the same family. So that a
   * service stays connected without anybody's help, and a revocation of what it began with still ends it.
   *
   * @throws AppError `forbidden` for other tokens, `unauthenticated` when it was revoked meanwhile.
   */
  async renew(claims: Claims, caller: Caller): Promise<IssuedToken> {
    if (claims.typ !== 'service')
      throw new AppError('forbidden', { detail: 'only service tokens are renewed' });
    const parent = await this.#store.findToken(claims.jti);
    if (parent === undefined) throw new AppError('unauthenticated', { tokenFault: 'revoked or unknown' });
    const { token, info } = this.#make({
      jti: randomUUID(),
      family: parent.family,
      sub: claims.sub,
      typ: claims.typ,
      aud: claims.aud,
      scope: claims.scope,
      keys: claims.keys,
      projects: claims.projects,
      lifeS: claims.exp - claims.iat,
    });
    const draft = this.#draft('token.renew', caller, describe(info));
    if (!(await this.#store.renewToken(claims.jti, info, draft)))
      throw new AppError('unauthenticated', { tokenFault: 'revoked' });
    return { token, ...info };
  }

  /**
   * Revokes a token and all that were renewed from the same first one, at once. Revoking again changes nothing.
   *
   * @throws AppError `token_not_found`.
   */
  async revoke(jti: string, caller: Caller): Promise<void> {
    const token = await this.#store.findToken(jti);
    if (token === undefined) throw new AppError('token_not_found');
    const draft = this.#draft('token.revoke', caller, {
      token: jti,
      family: token.family,
      sub: token.sub,
      expires_at: token.expires_at,
    });
    await this.#store.revokeFamily(token.family, draft.time, draft);
  }

  /** Tokens in the order of their issue, the expired and revoked ones too. */
  list(page: PageQuery<string>): Promise<Page<TokenInfo>> {
    return this.#store.listTokens(page);
  }

  #make(token: Omit<TokenInfo, 'issued_at' | 'expires_at' | 'revoked_at'> & { lifeS: number }): {
    token: string;
    info: TokenInfo;
  } {
    const iat = Math.floor(this.#clock.now() / 1000);
    const exp = iat + token.lifeS;
    const { lifeS: _, ...said } = token;
    const { jti, sub, typ, aud, scope, keys, projects } = said;
    return {
      token: this.#sign({
        iss: TOKEN_ISSUER,
        aud,
        sub,
        typ,
        scope: scope.join(' '),
        keys,
        projects,
        jti,
        iat,
        exp,
      }),
      info: { ...said, issued_at: isoOf(iat), expires_at: isoOf(exp) },
    };
  }

  #draft(action: string, caller: Caller, detail: NonNullable<AuditDraft['detail']>): AuditDraft {
    return {
      ...caller,
      time: new Date(this.#clock.now()).toISOString(),
      severity: 'INFO',
      action,
      outcome: 'allowed',
      detail,
    };
  }
}

function isoOf(seconds: number): string {
  return new Date(seconds * 1000).toISOString();
}

function describe(token: TokenInfo): NonNullable<AuditDraft['detail']> {
  return {
    token: token.jti,
    family: token.family,
    sub: token.sub,
    typ: token.typ,
    scope: token.scope.join(' '),
    keys: token.keys.join(' '),
    projects: token.projects.join(' '),
    expires_at: token.expires_at,
  };
}
