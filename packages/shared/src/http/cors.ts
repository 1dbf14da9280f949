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
 * Lets pages of these origins, and of no other, ask this server and read its answers, refusals among them
 * (Fetch standard, section 3.3). Without credentials: a token is in a header that the page must have, never
 * in a cookie that it has by itself.
 *
 * A preflight is answered where there is an endpoint, whatever its method; elsewhere it gets the 404 that any
 * request gets. What HTTP itself makes unreadable is answered without these headers, as its origin is not
 * known.
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
