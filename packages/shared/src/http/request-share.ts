import type { FastifyInstance, FastifyRequest } from 'fastify';
import { callerNetwork } from '../runtime/addresses.ts';
import { enterShare, type ShareKey } from '../shares/share-key.ts';

/** The share key of a request. */
const SHARE = Symbol('share');

declare module 'fastify' {
  interface FastifyRequest {
    [SHARE]?: ShareKey;
  }
}

/** Assigns a share to a request. The guard calls it once the token is verified. */
export function assignShare(request: FastifyRequest, key: ShareKey): void {
  request[SHARE] = key;
}

/** Charges all work of handlers to the share of their request. */
export function enterShares(app: FastifyInstance): void {
  // Not in the guard: the async context that it enters would be lost while the body is read.
  app.addHook('preHandler', (request, _reply, done) => {
    const key = request[SHARE];
    if (key !== undefined) enterShare(key);
    done();
  });
}

/** The share of a request whose token is verified. */
export function verifiedShare(request: FastifyRequest): ShareKey | undefined {
  return request[SHARE];
}

/** The share that a request uses: that of its token, or of its address until the token is verified. */
export function shareOfRequest(request: FastifyRequest): ShareKey {
  return request[SHARE] ?? { subject: `address ${callerNetwork(request.ip)}`, project: '' };
}
