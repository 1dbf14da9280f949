import type { FastifyInstance, FastifyRequest } from 'fastify';
import { callerNetwork } from '../runtime/addresses.ts';
import { enterShare, type ShareKey } from '../shares/share-key.ts';

/** Whose share a request uses. */
const SHARE = Symbol('share');

declare module 'fastify' {
  interface FastifyRequest {
    [SHARE]?: ShareKey;
  }
}

/** Charges a request to a share: to be called by the guard, once the token is verified. */
export function chargeRequest(request: FastifyRequest, key: ShareKey): void {
  request[SHARE] = key;
}

/** Has all that handlers do charged to the share of their request. */
export function enterShares(app: FastifyInstance): void {
  // Not in the guard: what it enters would be left again while the body is read.
  app.addHook('preHandler', (request, _reply, done) => {
    const key = request[SHARE];
    if (key !== undefined) enterShare(key);
    done();
  });
}

/** Whose share a request uses: its token's, or its address's while no token was verified. */
export function shareOfRequest(request: FastifyRequest): ShareKey {
  return request[SHARE] ?? { subject: `address ${callerNetwork(request.ip)}`, project: '' };
}
