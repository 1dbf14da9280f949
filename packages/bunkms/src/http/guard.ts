import { AppError } from '@bundoc/shared/contract/app-error';
import {
  requireKey,
  requireScope,
  requireService,
  requireServiceWithAny,
} from '@bundoc/shared/contract/grants';
import type { Claims, Scope } from '@bundoc/shared/contract/tokens';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { chargeRequest } from '@bundoc/shared/http/request-share';
import { canonicalAddress } from '@bundoc/shared/runtime/addresses';
import { shareKeyOf } from '@bundoc/shared/shares/share-key';
import type { FastifyRequest } from 'fastify';
import type { Caller } from '../audit/caller.ts';
import type { KmsStore } from '../store/port.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /**
     * Who calls; null before the guard has run, and when the token has no valid signature. Undefined on the bare request
     * that Fastify hands out for a path which it cannot decode.
     */
    identity: Identity | null | undefined;
  }
}

/** What a token says, and whether it still holds. */
export interface Identity {
  readonly claims: Claims;
  /** True once the store knew the token and it was not revoked. Only then may anything be done in its name. */
  readonly confirmed: boolean;
  /** What the token and all that were renewed from the same one have in common; known once confirmed. */
  readonly family?: string;
}

export type Guard = (request: FastifyRequest) => Promise<void>;

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
 * @param tokens gives the store of tokens, or throws `SEALED`.
 */
export function createGuards(auth: BearerAuth, tokens: () => Pick<KmsStore, 'liveFamily'>): Guards {
  const authenticate = async (request: FastifyRequest): Promise<Claims> => {
    const claims = await auth.authenticate(request);
    request.identity = { claims, confirmed: false };
    // Asked on every request, so that a revocation, also one by another process, acts at once.
    const family = await tokens().liveFamily(claims.jti);
    if (family === undefined) throw new AppError('unauthenticated', { tokenFault: 'revoked or unknown' });
    request.identity = { claims, confirmed: true, family };
    chargeRequest(request, shareKeyOf(claims));
    return claims;
  };
  return {
    token: async (request) => {
      await authenticate(request);
    },
    scope: (scope) => async (request) => requireScope(await authenticate(request), scope),
    service: (scope) => async (request) => requireService(await authenticate(request), scope),
    serviceWithAny: (scopes) => async (request) => requireServiceWithAny(await authenticate(request), scopes),
    keyInPath: (scope) => async (request) => {
      const claims = await authenticate(request);
      requireScope(claims, scope);
      requireKey(claims, nameInPath(request));
    },
    keyInPathWithAny: (scopes) => async (request) => {
      const claims = await authenticate(request);
      if (!scopes.some((scope) => claims.scope.includes(scope))) requireScope(claims, scopes[0]);
      requireKey(claims, nameInPath(request));
    },
    serviceForKeyInPath: (scope) => async (request) => {
      const claims = await authenticate(request);
      requireService(claims, scope);
      requireKey(claims, nameInPath(request));
    },
  };
}

/** The claims of a request that has passed a guard. */
export function claimsOf(request: FastifyRequest): Claims {
  if (request.identity?.confirmed !== true) throw new AppError('unauthenticated');
  return request.identity.claims;
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
