import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Claims } from '../contract/tokens.ts';
import { callerNetwork } from '../runtime/addresses.ts';
import { rootOf, type ShareKey, shareKeyOf } from '../shares/share-key.ts';
import { notePassed } from './connection-limit.ts';

/** The claims of a request's token, after the token is verified. */
const CLAIMS = Symbol('claims');
/** The share of a request, after it is authorized. */
const SHARE = Symbol('share');

declare module 'fastify' {
  interface FastifyRequest {
    [CLAIMS]?: Claims;
    [SHARE]?: ShareKey;
  }
}

/** An `onRequest` hook. */
export type Guard = (request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void) => void;

/**
 * Creates the guard of a route. It authorizes a request before the body is read and before anything is looked
 * up, so that no refusal reveals what exists. A request that passes is charged to the share of its token.
 *
 * @param authenticate returns the claims of the caller, synchronously if it can, which saves a promise.
 * @param authorize throws unless the caller may. It returns the project whose share the request uses, if any.
 */
export function createGuard(
  authenticate: (request: FastifyRequest) => Claims | Promise<Claims>,
  authorize: (claims: Claims, request: FastifyRequest) => string | undefined,
): Guard {
  const admit = (request: FastifyRequest, claims: Claims): void => {
    // The log names the caller of a refused request, too.
    request[CLAIMS] = claims;
    const key = shareKeyOf(claims, authorize(claims, request));
    assignShare(request, key);
    notePassed(request.raw.socket, key.subject);
  };
  return (request, _reply, done) => {
    try {
      const claims = authenticate(request);
      if (claims instanceof Promise) {
        void claims.then((known) => admit(request, known)).then(() => done(), done);
        return;
      }
      admit(request, claims);
    } catch (error) {
      done(error as Error);
      return;
    }
    done();
  };
}

/** The claims of a request that has passed a guard. */
export function claimsOf(request: FastifyRequest): Claims {
  const claims = request[CLAIMS];
  if (claims === undefined) throw new Error('the route has no guard');
  return claims;
}

/** Assigns a share to a request. {@link createGuard} does it. */
export function assignShare(request: FastifyRequest, key: ShareKey): void {
  request[SHARE] = key;
}

/** The share of an authorized request; undefined for one that needs no authorization. */
export function authorizedShare(request: FastifyRequest): ShareKey | undefined {
  return request[SHARE];
}

/** The root of the request's verified token, and its project once it is authorized. */
export function callerOf({ [CLAIMS]: claims, [SHARE]: share }: FastifyRequest): {
  readonly subject: string | undefined;
  readonly project: string | undefined;
} {
  return { subject: claims && rootOf(claims), project: share?.project || undefined };
}

/** The share of a request: that of its token, or that of its address before it is authorized. */
export function shareOfRequest(request: FastifyRequest): ShareKey {
  return request[SHARE] ?? { subject: `address ${callerNetwork(request.ip)}`, project: '' };
}
