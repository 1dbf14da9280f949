import type { FastifyRequest } from 'fastify';
import { callerNetwork } from '../runtime/addresses.ts';
import type { ShareKey } from '../shares/share-key.ts';

/** The share key of a request. */
const SHARE = Symbol('share');
/** The root of its token, from when the token is verified. */
const ROOT = Symbol('root');

declare module 'fastify' {
  interface FastifyRequest {
    [SHARE]?: ShareKey;
    [ROOT]?: string;
  }
}

/** Assigns a share to a request. The guard calls it once the request is authorized. */
export function assignShare(request: FastifyRequest, key: ShareKey): void {
  request[SHARE] = key;
}

/** The share of an authorized request; undefined for one that needs no authorization. */
export function authorizedShare(request: FastifyRequest): ShareKey | undefined {
  return request[SHARE];
}

/** Records the caller of a request for the log, whether or not it is authorized. The guard calls it. */
export function nameCaller(request: FastifyRequest, root: string): void {
  request[ROOT] = root;
}

/** Who is refused: the root of a verified token, and the project of an authorized request, if it has one. */
export function callerOf(request: FastifyRequest): {
  readonly subject: string | undefined;
  readonly project: string | undefined;
} {
  return { subject: request[ROOT], project: request[SHARE]?.project || undefined };
}

/** The share that a request uses: that of its token, or of its address until it is authorized. */
export function shareOfRequest(request: FastifyRequest): ShareKey {
  return request[SHARE] ?? { subject: `address ${callerNetwork(request.ip)}`, project: '' };
}
