import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Claims } from '../contract/tokens.ts';
import { rootOf, shareKeyOf } from '../shares/share-key.ts';
import { notePassed } from './connection-place.ts';
import { assignShare, nameCaller } from './request-share.ts';

const CLAIMS = Symbol('claims');

declare module 'fastify' {
  interface FastifyRequest {
    [CLAIMS]?: Claims;
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
    const root = rootOf(claims);
    nameCaller(request, root);
    const project = authorize(claims, request);
    request[CLAIMS] = claims;
    assignShare(request, shareKeyOf(claims, project));
    notePassed(request.raw.socket, root);
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
