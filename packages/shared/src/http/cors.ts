import type { IncomingMessage, ServerResponse } from 'node:http';
import type { FastifyInstance, FastifyReply } from 'fastify';

const ALLOWED_METHODS = 'GET, HEAD, POST, PUT, PATCH, DELETE';
const ALLOWED_HEADERS =
  'Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, Last-Event-ID';
/**
 * What a script may read beside what the Fetch standard always lets it. A problem document has the id of its
 * request in its body.
 */
const EXPOSED_HEADERS = 'ETag, Location, Retry-After, Allow, Accept-Patch, Content-Disposition';
/** How long a browser may go without asking again, seconds: what Chromium takes at most. */
const MAX_AGE_S = 7_200;

/**
 * Lets pages of these origins, and of no other, call this server and read its answers, including refusals
 * (Fetch standard, section 3.3). Without credentials: the page sends a token in a header, never in a cookie.
 *
 * A preflight succeeds for every path with an endpoint, for any method. Other paths get 404, as for any
 * request. Requests that HTTP cannot parse get no such headers, because their origin is unknown.
 *
 * To be called before any route is registered.
 */
export function allowOrigins(app: FastifyInstance, origins: readonly string[]): void {
  const allowed = new Set(origins);
  // Of the server and not a hook: refusals before routing and streams that Fastify lets go of need them as
  // well.
  app.server.prependListener('request', ({ headers }: IncomingMessage, response: ServerResponse) => {
    response.setHeader('Vary', 'Origin');
    if (headers.origin === undefined || !allowed.has(headers.origin)) return;
    response.setHeader('Access-Control-Allow-Origin', headers.origin);
    response.setHeader('Access-Control-Expose-Headers', EXPOSED_HEADERS);
  });
  // Before the guards of the routes: a preflight has no token.
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

/** Says that an answer depends on a header of its request, too. */
export function varyBy(reply: FastifyReply, header: string): void {
  // Fastify's headers take the place of those that the answer has already.
  const before = reply.raw.getHeader('vary');
  reply.header('vary', before === undefined ? header : `${before}, ${header}`);
}
