import { AppError } from '@bundoc/shared/contract/app-error';
import {
  requireKey,
  requireScope,
  requireService,
  requireServiceWithAny,
} from '@bundoc/shared/contract/grants';
import type { Claims, Scope } from '@bundoc/shared/contract/tokens';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { claimsOf, createGuard, type Guard } from '@bundoc/shared/http/guard';
import { canonicalAddress } from '@bundoc/shared/runtime/addresses';
import { shareKeyOf } from '@bundoc/shared/shares/share-key';
import type { FastifyRequest } from 'fastify';
import type { Caller } from '../records/caller.ts';
import type { TokenStore } from '../store/tokens.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /**
     * Who calls; null before the guard has run, and when the token has no valid signature. Undefined on the
     * bare request that Fastify hands out for a path which it cannot decode.
     */
    identity: Identity | null | undefined;
  }
}

/** What a token says, and whether it still holds. */
export interface Identity {
  readonly claims: Claims;
  /**
   * True once the store knew the token and it was not revoked. Only then may anything be done in its name.
   */
  readonly confirmed: boolean;
  /** What the token and all that were renewed from the same one have in common; known once confirmed. */
  readonly family?: string;
}

/** What a route may ask of its caller; each is an `onRequest` hook, so it acts before a body is read. */
export interface Guards {
  /** Any valid token for BunKMS. */
  readonly token: Guard;
  scope(scope: Scope): Guard;
  /** The scope, for service tokens only. */
  service(scope: Scope): Guard;
  /** {@link service} for a token with one of the scopes at least. */
  serviceWithAny(scopes: readonly [Scope, ...Scope[]]): Guard;
  /** The scope, and a glob for the key that the path names. Decides before anything is looked up. */
  keyInPath(scope: Scope): Guard;
  /** {@link keyInPath} for a token with one of the scopes at least. */
  keyInPathWithAny(scopes: readonly [Scope, ...Scope[]]): Guard;
  /** {@link keyInPath} for service tokens only. */
  serviceForKeyInPath(scope: Scope): Guard;
}

/**
 * @param tokens gives the store of tokens, or throws `sealed`.
 */
export function createGuards(
  auth: BearerAuth,
  tokens: () => Pick<TokenStore, 'findActiveTokenFamily'>,
): Guards {
  const authenticate = async (request: FastifyRequest): Promise<Claims> => {
    const claims = await auth.authenticate(request);
    request.identity = { claims, confirmed: false };
    // Asked on every request, so that a revocation, also one by another process, acts at once.
    const family = await tokens().findActiveTokenFamily(claims.jti);
    if (family === undefined) throw new AppError('unauthenticated', { tokenFault: 'revoked or unknown' });
    request.identity = { claims, confirmed: true, family };
    return claims;
  };
  const guard = (authorize: (claims: Claims, request: FastifyRequest) => void): Guard =>
    createGuard(authenticate, (claims, request) => {
      authorize(claims, request);
      return undefined;
    });
  return {
    token: guard(() => undefined),
    scope: (scope) => guard((claims) => requireScope(claims, scope)),
    service: (scope) => guard((claims) => requireService(claims, scope)),
    serviceWithAny: (scopes) => guard((claims) => requireServiceWithAny(claims, scopes)),
    keyInPath: (scope) =>
      guard((claims, request) => {
        requireScope(claims, scope);
        requireKey(claims, nameInPath(request));
      }),
    keyInPathWithAny: (scopes) =>
      guard((claims, request) => {
        if (!scopes.some((scope) => claims.scope.includes(scope))) requireScope(claims, scopes[0]);
        requireKey(claims, nameInPath(request));
      }),
    serviceForKeyInPath: (scope) =>
      guard((claims, request) => {
        requireService(claims, scope);
        requireKey(claims, nameInPath(request));
      }),
  };
}

/** The family of the token of a request that has passed a guard. */
export function familyOf(request: FastifyRequest): string {
  const family = request.identity?.family;
  if (family === undefined) throw new AppError('unauthenticated');
  return family;
}

/** Whose share a request uses that has passed a guard: the root of its token. */
export function subjectOf(request: FastifyRequest): string {
  return shareKeyOf(claimsOf(request)).subject;
}

/** Who calls, for audit records; as far as it is known. */
export function callerOf(request: FastifyRequest): Caller {
  const claims = request.identity?.claims;
  return {
    ...(claims === undefined ? {} : { actor: claims.sub, jti: claims.jti }),
    source: canonicalAddress(request.ip) ?? 'unknown',
    request_id: request.id,
  };
}

function nameInPath(request: FastifyRequest): string {
  return (request.params as { name: string }).name;
}
