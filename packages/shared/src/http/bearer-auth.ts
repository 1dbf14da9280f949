import { createPublicKey } from 'node:crypto';
import type { FastifyRequest } from 'fastify';
import { compactVerify, errors } from 'jose';
import { LRUCache } from 'lru-cache';
import { AppError, type TokenFault } from '../contract/app-error.ts';
import {
  type Audience,
  type Claims,
  claimsSchema,
  TOKEN_ISSUER,
  TOKEN_LENGTH_MAX,
} from '../contract/tokens.ts';
import type { Clock } from '../runtime/clock.ts';

/** Finds public keys by `kid`. */
export interface VerificationKeys {
  /**
   * PEM (SPKI) of an Ed25519 key; undefined for an unknown `kid`. @throws AppError when the keys are
   * unavailable.
   */
  find(kid: string): Promise<string | undefined>;
  /** False once a `kid` is withdrawn. Called on every request, so it must be cheap. */
  isCurrent(kid: string): boolean;
}

export interface BearerAuthOptions {
  readonly audience: Audience;
  readonly keys: VerificationKeys;
  readonly clock: Clock;
  /** Whether the token was revoked. Called on every request, so it must be cheap. */
  readonly isRevoked?: (claims: Claims) => boolean;
}

/** Verified tokens in the cache. A verification costs a hundred times as much as a look-up. */
const VERIFIED_MAX = 5_000;
/** As in the schema of the key set. A longer `kid` is not looked up. */
const KID_LENGTH_MAX = 64;
/** How far the issuer's clock may run ahead of ours, seconds. */
const CLOCK_SKEW_S = 60;

interface Verified {
  readonly claims: Claims;
  readonly kid: string;
}

/** The former name of the one algorithm, and that of RFC 9864. */
const ALGORITHMS = ['EdDSA', 'Ed25519'];

/**
 * Checks bearer tokens: Ed25519 signature, then the claims. Verified signatures are cached. Expiry,
 * revocation and the withdrawal of keys are checked on every request.
 */
export class BearerAuth {
  readonly #options: BearerAuthOptions;
  /** By the whole header, which then need not be parsed. */
  readonly #verified = new LRUCache<string, Verified>({ max: VERIFIED_MAX });

  constructor(options: BearerAuthOptions) {
    this.#options = options;
  }

  /**
   * @returns the claims of the request's token; synchronously for a cached token.
   * @throws AppError `unauthenticated` for any fault of the token, or what `keys.find` throws.
   */
  authenticate(request: FastifyRequest): Claims | Promise<Claims> {
    const { authorization = '' } = request.headers;
    const known = this.#verified.get(authorization);
    return known === undefined ? this.#verify(authorization) : this.#checked(known);
  }

  async #verify(header: string): Promise<Claims> {
    const token = bearerToken(header);
    if (!isCanonical(token)) throw refused('malformed');
    const { payload, protectedHeader } = await compactVerify(token, ({ kid }) => this.#findKey(kid), {
      algorithms: ALGORITHMS,
    }).catch((error) => {
      throw error instanceof AppError ? error : refused(faultOf(error), error);
    });
    const content = jsonOf(payload);
    const { iss } = Object(content) as { readonly iss?: unknown };
    if (typeof iss === 'string' && iss !== TOKEN_ISSUER) throw refused('wrong issuer');
    const claims = claimsSchema.safeParse(content);
    if (!claims.success) throw refused('claims missing or invalid', claims.error);
    if (claims.data.aud !== this.#options.audience) throw refused('wrong audience');
    const verified = { claims: frozen(claims.data), kid: String(protectedHeader.kid) };
    const result = this.#checked(verified);
    this.#verified.set(header, verified);
    return result;
  }

  async #findKey(kid: unknown) {
    const isName = typeof kid === 'string' && kid !== '' && kid.length <= KID_LENGTH_MAX;
    let pem: string | undefined;
    try {
      if (isName) pem = await this.#options.keys.find(kid);
    } catch (error) {
      // A defect of the key source is not a fault of the token, so it must not become a 401.
      throw error instanceof AppError ? error : new AppError('internal_error', { cause: error });
    }
    if (pem === undefined) throw refused('unknown signing key');
    return createPublicKey(pem);
  }

  #checked({ claims, kid }: Verified): Claims {
    const { clock, keys, isRevoked } = this.#options;
    const nowS = clock.now() / 1000;
    if (claims.exp <= nowS) throw refused('expired');
    if (Math.max(claims.iat, claims.nbf ?? 0) > nowS + CLOCK_SKEW_S) throw refused('not valid yet');
    if (!keys.isCurrent(kid)) throw refused('signing key withdrawn');
    if (isRevoked?.(claims) === true) throw refused('revoked');
    return claims;
  }
}

function refused(tokenFault: TokenFault, cause?: unknown): AppError {
  return new AppError('unauthenticated', { tokenFault, cause });
}

function faultOf(error: unknown): TokenFault {
  if (error instanceof errors.JWSSignatureVerificationFailed) return 'bad signature';
  return error instanceof errors.JOSEAlgNotAllowed ? 'algorithm not allowed' : 'malformed';
}

function jsonOf(payload: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(payload).toString('utf8'));
  } catch {
    return undefined;
  }
}

/** The scheme is case-insensitive (RFC 9110, section 11.1). One space separates it from the token. */
const BEARER = /^bearer ([A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)$/i;

function bearerToken(header: string): string {
  const token = header.length > TOKEN_LENGTH_MAX + 7 ? undefined : BEARER.exec(header)?.[1];
  if (token === undefined) throw refused(/^bearer\b/i.test(header) ? 'malformed' : 'absent');
  return token;
}

/**
 * False when unused bits at the end of the signature are set: such a token would be another spelling of a
 * valid one.
 */
function isCanonical(token: string): boolean {
  const signature = token.slice(token.lastIndexOf('.') + 1);
  return Buffer.from(signature, 'base64url').toString('base64url') === signature;
}

/** All requests with a token share its cached claims, so none of them may change them. */
function frozen(claims: Claims): Claims {
  const limit = claims.may_issue;
  const limits = limit === undefined ? [] : [limit, limit.scopes, limit.keys, limit.projects];
  for (const part of [claims.scope, claims.keys, claims.projects, ...limits]) Object.freeze(part);
  return Object.freeze(claims);
}
