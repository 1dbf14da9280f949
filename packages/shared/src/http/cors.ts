import type { IncomingMessage, ServerResponse } from 'node:http';
import type { FastifyInstance, FastifyReply } from 'fastify';

const ALLOWED_METHODS = 'GET, HEAD, POST, PUT, PATCH, DELETE';
const ALLOWED_HEADERS =
  'Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, Last-Event-ID';
/**
 * Headers that a script may read, in addition to those that the Fetch standard always allows. The request id
 * is not among them, because problem documents contain it.
 */
const EXPOSED_HEADERS = 'ETag, Location, Retry-After, Allow, Accept-Patch, Content-Disposition';
/** How long a browser may cache a preflight, seconds: the maximum of Chromium. */
const MAX_AGE_S = 7_200;

/**
 * Allows pages of these origins, and no others, to call this server and read its answers, including refusals
 * (Fetch standard, section 3.3). Credentials are not allowed: a page sends its token in a header, never in a
 * cookie.
 *
 * A preflight succeeds for every path with an endpoint, for any method. Other paths get 404, as for any
 * request. Requests that HTTP cannot parse get no such headers, because their origin is unknown.
 *
 * Call it before any route is registered.
 */
export function allowOrigins(app: FastifyInstance, origins: readonly string[]): void {
  const allowed = new Set(origins);
  // A listener of the server, not a hook: refusals before routing and hijacked streams need these headers
  // too.
  app.server.prependListener('request', ({ headers }: IncomingMessage, response: ServerResponse) => {
    response.setHeader('Vary', 'Origin');
    if (headers.origin === undefined || !allowed.has(headers.origin)) return;
    response.setHeader('Access-Control-Allow-Origin', headers.origin);
    response.setHeader('Access-Control-Expose-Headers', EXPOSED_HEADERS);
  });
  // Runs before the guards of the routes, because a preflight has no token.
  app.addHook('onRequest', (request, reply, done) => {
    const { origin, 'access-control-request-method': wanted } = request.headers;
    const isPreflight = request.method === 'OPTIONS' && wanted !== undefined;
    if (!isPreflight || request.is404 || origin === undefined || !allowed.has(origin)) {
      done();
      return;
    }
    reply
      .code(204)
      .header('access-control-allow-methods', ALLOWED_METHODS)
      .header('access-control-allow-headers', ALLOWED_HEADERS)
      .header('access-control-max-age', MAX_AGE_S)
      .send();
  });
}

/** Adds a request header to the `Vary` header of an answer. */
export function varyBy(reply: FastifyReply, header: string): void {
  // Fastify's headers replace those that the raw response has already.
  const before = reply.raw.getHeader('vary');
  reply.header('vary', before === undefined ? header : `${before}, ${header}`);
}
