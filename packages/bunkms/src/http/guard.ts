import { AppError } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import {
  requireKey,
  requireProjectKeys,
  requireScope,
  requireService,
  requireServiceWithAny,
} from '@bundoc/shared/contract/grants';
import { RECEIPT_HEADER } from '@bundoc/shared/contract/kms-receipt';
import type { Claims, Scope } from '@bundoc/shared/contract/tokens';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { claimsOf, createGuard, type Guard } from '@bundoc/shared/http/guard';
import { canonicalAddress } from '@bundoc/shared/runtime/addresses';
import { shareKeyOf } from '@bundoc/shared/shares/share-key';
import type { FastifyRequest } from 'fastify';
import type { Caller } from '../records/caller.ts';
import type { TokenStore } from '../store/tokens.ts';
import { reachesAll } from '../tokens/may-issue.ts';
import type { Receipts } from '../trust/receipts.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /**
     * The caller; null before the guard has run, and when the signature of the token is invalid. Undefined on
     * the bare request that Fastify creates for a path that it cannot decode.
     */
    identity: Identity | null | undefined;
  }
}

/** The claims of a token, and whether it is still valid. */
export interface Identity {
  readonly claims: Claims;
  /** True once the store has confirmed that the token is known and not revoked. Only then may it be used. */
  readonly confirmed: boolean;
  /** The family of the token; known once confirmed. */
  readonly family?: string;
}

/** The guards of routes. Each is an `onRequest` hook, so it runs before a body is read. */
export interface Guards {
  /** Any valid token for BunKMS. */
  readonly token: Guard;
  scope(scope: Scope): Guard;
  /** Requires the scope and a service token. */
  service(scope: Scope): Guard;
  /**
   * {@link serviceWithAny} of {@link KEK_READERS}. Not `kms:admin` with a narrow `may_issue`: the answers are
   * about the keys of everyone.
   */
  readonly readKeks: Guard;
  /** {@link service} with at least one of the scopes. */
  serviceWithAny(scopes: readonly [Scope, ...Scope[]]): Guard;
  /** Requires the scope, and a glob for the key in the path. Decides before anything is looked up. */
  keyInPath(scope: Scope): Guard;
  /** {@link keyInPath} with at least one of the scopes. */
  keyInPathWithAny(scopes: readonly [Scope, ...Scope[]]): Guard;
  /** {@link keyInPath} for service tokens only. */
  serviceForKeyInPath(scope: Scope): Guard;
  /** Requires the scope, and the keys of all projects: a storage may hold any of them. */
  storage(scope: Scope): Guard;
  /** {@link storage} for service tokens only. */
  serviceForStorage(scope: Scope): Guard;
}

/** The scopes that read the states of KEKs. */
export const KEK_READERS = ['kms:manage_kek', 'kms:admin'] as const;

/** What the guards need of the services. */
export interface GuardServices {
  readonly store: Pick<TokenStore, 'findActiveTokenFamily'>;
  readonly receipts: Pick<Receipts, 'require'>;
}

/** @param services returns them, or throws `sealed`. */
export function createGuards(auth: BearerAuth, services: () => GuardServices): Guards {
  const authenticate = async (request: FastifyRequest): Promise<Claims> => {
    const claims = await auth.authenticate(request);
    request.identity = { claims, confirmed: false };
    // Checked on every request, so that a revocation by any process takes effect at once.
    const { store, receipts } = services();
    const family = await store.findActiveTokenFamily(claims.jti);
    if (family === undefined) throw new AppError('unauthenticated', { tokenFault: 'revoked or unknown' });
    request.identity = { claims, confirmed: true, family };
    await receipts.require(request.headers[RECEIPT_HEADER]);
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
    readKeks: guard((claims) => {
      requireServiceWithAny(claims, KEK_READERS);
      if (!claims.scope.includes('kms:manage_kek') && !reachesAll(claims))
        throw new AppError('forbidden', { detail: 'kms:admin reads KEKs only without a narrow may_issue' });
    }),
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
    storage: (scope) =>
      guard((claims) => {
        requireScope(claims, scope);
        requireProjectKeys(claims);
      }),
    serviceForStorage: (scope) =>
      guard((claims) => {
        requireService(claims, scope);
        requireProjectKeys(claims);
      }),
  };
}

/** The family of the token of a request that has passed a guard. */
export function familyOf(request: FastifyRequest): string {
  const family = request.identity?.family;
  if (family === undefined) throw new AppError('unauthenticated');
  return family;
}

/** The share subject of a request that has passed a guard: the root of its token. */
export function subjectOf(request: FastifyRequest): string {
  return shareKeyOf(claimsOf(request)).subject;
}

/** The caller for audit records, as far as it is known. */
export function callerOf(request: FastifyRequest): Caller {
  const claims = request.identity?.claims;
  return {
    ...defined({ actor: claims?.sub, jti: claims?.jti }),
    source: canonicalAddress(request.ip) ?? 'unknown',
    request_id: request.id,
  };
}

function nameInPath(request: FastifyRequest): string {
  return (request.params as { name: string }).name;
}
