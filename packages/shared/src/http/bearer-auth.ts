import fastifyJwt from '@fastify/jwt';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { LRUCache } from 'lru-cache';
import { AppError, type TokenFault } from '../contract/app-error.ts';
import {
  type Audience,
  type Claims,
  claimsSchema,
  TOKEN_AHEAD_S_MAX,
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

/** Maximum of verified tokens in the cache. A verification costs as much as a hundred look-ups. */
const VERIFIED_MAX = 5_000;
/** As in the schema of the key set. A longer `kid` is not looked up. */
const KID_LENGTH_MAX = 64;

interface Verified {
  readonly claims: Claims;
  readonly kid: string;
}

/**
 * Checks bearer tokens: Ed25519 signature by `@fastify/jwt`, then the claims. Verified signatures are
 * cached. Expiry, revocation and the withdrawal of keys are checked on every request.
 *
 * Register {@link BearerAuth.register} on the app before its routes are called.
 */
export class BearerAuth {
  readonly #options: BearerAuthOptions;
  /** By the whole header, so that the header of a cached token is not parsed. */
  readonly #verified = new LRUCache<string, Verified>({ max: VERIFIED_MAX });

  constructor(options: BearerAuthOptions) {
    this.#options = options;
  }

  async register(app: FastifyInstance): Promise<void> {
    await app.register(fastifyJwt, {
      secret: async (_request: FastifyRequest, token: unknown) => {
        const kid = kidOf(token);
        const pem = kid === undefined ? undefined : await this.#findKey(kid);
        if (pem === undefined) throw refused('unknown signing key');
        return pem;
      },
      decode: { complete: true },
      verify: {
        algorithms: ['EdDSA'],
        allowedIss: TOKEN_ISSUER,
        allowedAud: this.#options.audience,
        requiredClaims: ['iss', 'aud', 'sub', 'jti', 'iat', 'exp'],
        // Times are checked below against the injected clock, for cached and new tokens.
        ignoreExpiration: true,
        ignoreNotBefore: true,
        // The look-up of the key and the check parse the header in the same way.
        extractToken: bearerToken,
        cache: false,
      },
    });
  }

  /**
   * @returns the claims of the request's token; synchronously for a cached token.
   * @throws AppError `unauthenticated` for any fault of the token, or what `keys.find` throws.
   */
  authenticate(request: FastifyRequest): Claims | Promise<Claims> {
    const known = this.#verified.get(request.headers.authorization ?? '');
    return known === undefined ? this.#verify(request) : this.#checked(known);
  }

  /** A defect of the key source is not a fault of the token, so it must not become a 401. */
  async #findKey(kid: string): Promise<string | undefined> {
    try {
      return await this.#options.keys.find(kid);
    } catch (error) {
      throw error instanceof AppError ? error : new AppError('internal_error', { cause: error });
    }
  }

  async #verify(request: FastifyRequest): Promise<Claims> {
    const token = bearerToken(request);
    if (!isCanonical(token)) throw refused('malformed');
    const header = jsonOf(token.slice(0, token.indexOf('.')));
    const kid = kidOf({ header });
    if (kid === undefined) throw refused(header === undefined ? 'malformed' : 'unknown signing key');
    const payload = await verifyWithPlugin(request);
    const claims = claimsSchema.safeParse(payload);
    if (!claims.success) throw refused('claims missing or invalid', claims.error);
    if (claims.data.aud !== this.#options.audience) throw refused('wrong audience');
    const verified = { claims: frozen(claims.data), kid };
    const result = this.#checked(verified);
    this.#verified.set(request.headers.authorization as string, verified);
    return result;
  }

  #checked({ claims, kid }: Verified): Claims {
    const { clock, keys, isRevoked } = this.#options;
    const nowS = clock.now() / 1000;
    if (claims.exp <= nowS) throw refused('expired');
    if (Math.max(claims.iat, claims.nbf ?? 0) > nowS + TOKEN_AHEAD_S_MAX) throw refused('not valid yet');
    if (!keys.isCurrent(kid)) throw refused('signing key withdrawn');
    if (isRevoked?.(claims) === true) throw refused('revoked');
    return claims;
  }
}

function refused(tokenFault: TokenFault, cause?: unknown): AppError {
  return new AppError('unauthenticated', { tokenFault, cause });
}

async function verifyWithPlugin(request: FastifyRequest): Promise<unknown> {
  try {
    return await request.jwtVerify();
  } catch (error) {
    throw error instanceof AppError ? error : refused(faultOf(error), error);
  }
}

/** Patterns of fast-jwt's messages: `@fastify/jwt` hides the rest of its errors. A test pins each. */
const FAULTS: readonly (readonly [RegExp, TokenFault])[] = [
  [/ signature is /, 'bad signature'],
  [/ algorithm is /, 'algorithm not allowed'],
  [/The aud claim value /, 'wrong audience'],
  [/The iss claim value /, 'wrong issuer'],
  [/ claim /, 'claims missing or invalid'],
];

/** The fault that `@fastify/jwt` found in a token. */
function faultOf(error: unknown): TokenFault {
  const message = error instanceof Error ? error.message : '';
  return FAULTS.find(([words]) => words.test(message))?.[1] ?? 'malformed';
}

function jsonOf(part: string): unknown {
  try {
    return JSON.parse(Buffer.from(part, 'base64url').toString('utf8'));
  } catch {
    return undefined;
  }
}

/** The scheme is case-insensitive (RFC 9110, section 11.1). One space separates it from the token. */
const BEARER = /^bearer ([A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)$/i;

function bearerToken(request: FastifyRequest): string {
  const header = request.headers.authorization;
  const token =
    header === undefined || header.length > TOKEN_LENGTH_MAX + 7 ? undefined : BEARER.exec(header)?.[1];
  if (token !== undefined) return token;
  if (header !== undefined && /^bearer\b/i.test(header)) throw refused('malformed');
  throw new AppError('unauthenticated', {
    tokenFault: 'absent',
    detail: 'the header must be: Authorization: Bearer <token>',
  });
}

/**
 * False when unused bits at the end of the signature are set: such a token would be another spelling of a
 * valid one.
 */
function isCanonical(token: string): boolean {
  const signature = token.slice(token.lastIndexOf('.') + 1);
  return Buffer.from(signature, 'base64url').toString('base64url') === signature;
}

function kidOf(decoded: unknown): string | undefined {
  const kid = (decoded as { header?: { kid?: unknown } } | null)?.header?.kid;
  return typeof kid === 'string' && kid !== '' && kid.length <= KID_LENGTH_MAX ? kid : undefined;
}

/** All requests with a token share its cached claims, so none of them may change them. */
function frozen(claims: Claims): Claims {
  const limit = claims.may_issue;
  const limits = limit === undefined ? [] : [limit, limit.scopes, limit.keys, limit.projects];
  for (const part of [claims.scope, claims.keys, claims.projects, ...limits]) Object.freeze(part);
  return Object.freeze(claims);
}
