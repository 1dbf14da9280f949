import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import Fastify, { type FastifyInstance, type FastifyRequest, type HTTPMethods, LogController } from 'fastify';
import type { ProblemCode } from '../contract/problem.ts';
import { AppError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { describe } from '../openapi/description.ts';
import { rememberRoutes } from '../openapi/registered-routes.ts';
import { guardTls, type ServerTls, tlsOptionsOf } from '../tls/server-tls.ts';
import { writeAnswersTogether } from './answers-together.ts';
import { boundHeldAnswers, boundHeldBodies } from './held-bytes.ts';
import { isUtf8Type } from './media-type.ts';
import { PROBLEM_CONTENT_TYPE, problemOf, replyProblem, toAppError } from './problem-reply.ts';

export interface HttpServerOptions {
  readonly logger: Logger;
  /** Largest body, bytes; beyond it 413. */
  readonly bodyBytesMax: number;
  /** Told of every refused or failed request, exactly once, before its answer is sent. */
  readonly onProblem?: (request: FastifyRequest, error: AppError) => void;
  /** Plain HTTP when absent. */
  readonly tls?: ServerTls | undefined;
  /** {@link REQUEST_TIMEOUT_MS} unless a test is in a hurry. */
  readonly requestTimeoutMs?: number;
  /** {@link STALLED_TIMEOUT_MS} unless a test is in a hurry. */
  readonly stalledTimeoutMs?: number;
  /** {@link CLOSE_GRACE_MS} unless a test is in a hurry. */
  readonly closeGraceMs?: number;
  /** {@link HELD_BYTES_MAX} unless a test says otherwise. */
  readonly heldBytesMax?: number;
  /** {@link CONNECTIONS_MAX} unless a test says otherwise. */
  readonly connectionsMax?: number;
}

/** Connections of one server; more are closed as they come, so that strangers do not use up the file descriptors. */
export const CONNECTIONS_MAX = 4_096;
/** Bytes of bodies that one server holds at a time, all connections together, and the same of answers; beyond it 503 `overloaded`. */
export const HELD_BYTES_MAX = 134_217_728;
/** Longest time to receive a whole request, milliseconds. */
export const REQUEST_TIMEOUT_MS = 30_000;
/**
 * Longest time that a connection may stand still in the midst of a request or its answer, milliseconds. Without it, an answer that
 * nobody reads would be held for ever.
 */
export const STALLED_TIMEOUT_MS = 60_000;
/**
 * How long a closing server waits for its connections, milliseconds. One that is open but has sent nothing, or half a
 * request, does not count as idle for Node and would hold up the stop until its own timeout.
 */
export const CLOSE_GRACE_MS = 5_000;
/** How long a connection whose request was refused unread may stay open for its answer to arrive, milliseconds. */
const REFUSED_LINGER_MS = 500;
const CHECKING_INTERVAL_MS = 5_000;
const HEADER_BYTES_MAX = 16_384;
/** Decoded characters of one path parameter; the schemas bound the bytes more tightly. */
const PARAM_LENGTH_MAX = 1_024;

/** Failures of ours whose cause nobody else logs. */
const LOGGED_WITH_CAUSE: ReadonlySet<ProblemCode> = new Set([
  'internal_error',
  'storage_unavailable',
  'disk_full',
]);

const METHODS: readonly HTTPMethods[] = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE'];

/**
 * A Fastify instance with everything that both services have in common: limits, problem documents for every way to
 * fail (also those before routing), request ids, one log line a request, raw JSON bodies.
 *
 * Bodies reach the handlers as the client's bytes (`Buffer`), of `application/json` only and never compressed.
 * Once all routes are registered, call {@link refuseOtherMethods}.
 */
export function createHttpServer(options: HttpServerOptions): FastifyInstance {
  const newRequestId = requestIds();
  const requestTimeoutMs = options.requestTimeoutMs ?? REQUEST_TIMEOUT_MS;

  const fail = (thrown: unknown, request: FastifyRequest): AppError => {
    const error = toAppError(thrown, request);
    if (LOGGED_WITH_CAUSE.has(error.code))
      options.logger.error(
        { reqId: request.id, code: error.code, err: error.cause ?? error },
        'request failed',
      );
    try {
      options.onProblem?.(request, error);
    } catch (thrownByObserver) {
      // The answer must not depend on who is told of it.
      options.logger.fatal({ reqId: request.id, err: thrownByObserver }, 'a refusal could not be reported');
    }
    return error;
  };

  const nodeOptions = {
    maxHeaderSize: HEADER_BYTES_MAX,
    headersTimeout: requestTimeoutMs,
    connectionsCheckingInterval: Math.min(CHECKING_INTERVAL_MS, requestTimeoutMs),
    // Node's own answer to a missing Host has no body: the hook below gives one.
    requireHostHeader: false,
  };
  const app = Fastify({
    loggerInstance: options.logger,
    logController: new LogController({ disableRequestLogging: true }),
    // Nothing logs through a request's own logger: our lines name the request's id themselves.
    childLoggerFactory: (logger) => logger,
    genReqId: newRequestId,
    requestIdHeader: false,
    bodyLimit: options.bodyBytesMax,
    routerOptions: { maxParamLength: PARAM_LENGTH_MAX },
    exposeHeadRoutes: false,
    requestTimeout: requestTimeoutMs,
    connectionTimeout: options.stalledTimeoutMs ?? STALLED_TIMEOUT_MS,
    keepAliveTimeout: 65_000,
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    ...(options.tls === undefined
      ? { http: nodeOptions }
      : { https: { ...nodeOptions, ...tlsOptionsOf(options.tls) } }),
    frameworkErrors: (error, request, reply) => {
      replyProblem(fail(error, request), request, reply);
    },
    clientErrorHandler: (error, socket) => answerClientError(error, socket, newRequestId),
  }) as unknown as FastifyInstance;

  if (options.tls !== undefined) guardTls(app, options.tls);
  app.server.prependListener('request', (request: IncomingMessage, response: ServerResponse) => {
    (request.socket as ServedSocket)[LATEST] = response;
  });
  // Node would answer an unknown expectation with a bare 417; RFC 9110, section 10.1.1, allows to ignore it.
  app.server.on('checkExpectation', (request: IncomingMessage, response: ServerResponse) => {
    app.server.emit('request', request, response);
  });
  app.server.maxConnections = options.connectionsMax ?? CONNECTIONS_MAX;
  closeInTime(app, options.closeGraceMs ?? CLOSE_GRACE_MS);
  boundHeldBodies(app, options.bodyBytesMax, options.heldBytesMax ?? HELD_BYTES_MAX);
  boundHeldAnswers(app, options.heldBytesMax ?? HELD_BYTES_MAX);

  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (request, body, done) => {
    if (isUtf8Type(request.headers['content-type'])) done(null, body);
    else done(new AppError('unsupported_media_type', { detail: 'the charset must be utf-8' }), undefined);
  });
  // These three run for every request: with callbacks they cost no promise each.
  app.addHook('onRequest', (request, _reply, done) => {
    if (request.headers.host === undefined && request.raw.httpVersion === '1.1')
      done(new AppError('invalid_request', { detail: 'the Host header is missing' }));
    else if (request.headers['content-encoding'] !== undefined)
      done(new AppError('unsupported_media_type', { detail: 'the body must not have a Content-Encoding' }));
    else done();
  });
  app.addHook('onSend', (_request, reply, payload, done) => {
    reply.header('x-content-type-options', 'nosniff');
    if (!reply.hasHeader('cache-control')) reply.header('cache-control', 'no-store');
    done(null, payload);
  });
  writeAnswersTogether(app);
  app.addHook('onResponse', (request, reply, done) => {
    const status = reply.statusCode;
    const level = status >= 500 ? 'error' : status >= 400 ? 'info' : 'debug';
    if (options.logger.isLevelEnabled(level))
      options.logger[level](
        {
          reqId: request.id,
          method: request.method,
          route: request.routeOptions.url ?? 'none',
          status,
          ms: Math.round(reply.elapsedTime * 10) / 10,
        },
        'request',
      );
    done();
  });
  app.setErrorHandler((error, request, reply) => replyProblem(fail(error, request), request, reply));
  app.setNotFoundHandler((request, reply) =>
    replyProblem(fail(new AppError('not_found'), request), request, reply),
  );
  rememberMethods(app);
  rememberRoutes(app);
  return app;
}

/** Ids that differ between processes and are cheap: a random prefix and a count. Never taken from the client. */
function requestIds(): () => string {
  const prefix = randomBytes(6).toString('hex');
  let count = 0;
  return () => `${prefix}-${(++count).toString(36)}`;
}

/** Ends, after a grace, the connections that Node does not count as idle. */
function closeInTime(app: FastifyInstance, graceMs: number): void {
  let timer: NodeJS.Timeout | undefined;
  app.addHook('preClose', async () => {
    timer = setTimeout(() => app.server.closeAllConnections(), graceMs).unref();
  });
  app.addHook('onClose', async () => clearTimeout(timer));
}

const LATEST = Symbol('latest response');

interface ServedSocket extends Socket {
  /** The response to the latest request that was parsed from the connection. */
  [LATEST]?: ServerResponse;
}

/**
 * True when an answer put on the wire now would be taken for the answer to the request at fault. It would not be while
 * another request of the connection, which was received in whole, still waits for its own: that one may have been
 * carried out, and must not be reported as refused.
 */
function mayAnswer(socket: Socket, latest: ServerResponse | undefined): boolean {
  if (latest === undefined || latest.writableFinished) return true;
  if (latest.socket !== socket) return false;
  return latest.writableEnded || (!latest.req.complete && !latest.headersSent);
}

function codeOfClientError(error: NodeJS.ErrnoException): ProblemCode {
  switch (error.code) {
    case 'HPE_HEADER_OVERFLOW':
      return 'headers_too_large';
    case 'HPE_CHUNK_EXTENSIONS_OVERFLOW':
      return 'payload_too_large';
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return 'request_timeout';
    default:
      return 'invalid_request';
  }
}

/** What Node's HTTP parser refuses never reaches Fastify's hooks; it gets its problem document here. */
function answerClientError(
  error: NodeJS.ErrnoException,
  socket: ServedSocket,
  newRequestId: () => string,
): void {
  if (socket.writableEnded) return; // Answered already; what still arrives is let run out.
  if (error.code === 'ECONNRESET' || !socket.writable || !mayAnswer(socket, socket[LATEST])) {
    socket.destroy();
    return;
  }
  const problem = problemOf(new AppError(codeOfClientError(error)), newRequestId());
  const body = JSON.stringify(problem);
  socket.end(
    `HTTP/1.1 ${problem.status} ${problem.title}\r\nContent-Type: ${PROBLEM_CONTENT_TYPE}\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nCache-Control: no-store\r\n` +
      `X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n${body}`,
  );
  // Node lets the client keep its half of the connection for as long as it likes.
  setTimeout(() => socket.destroy(), REFUSED_LINGER_MS).unref();
}

const methodsByApp = new WeakMap<FastifyInstance, Map<string, Set<string>>>();

function rememberMethods(app: FastifyInstance): void {
  const methodsByUrl = new Map<string, Set<string>>();
  methodsByApp.set(app, methodsByUrl);
  app.addHook('onRoute', (route) => {
    const methods = methodsByUrl.get(route.url) ?? new Set();
    for (const method of [route.method].flat()) methods.add(method);
    methodsByUrl.set(route.url, methods);
  });
}

/**
 * Answers 405 with `Allow` on every path that exists under another method. Fastify has no such answer of its own.
 * Call it once, after all routes.
 */
export function refuseOtherMethods(app: FastifyInstance): void {
  for (const [url, methods] of [...(methodsByApp.get(app) ?? [])]) {
    const allow = [...methods].sort();
    app.route({
      url,
      method: METHODS.filter((method) => !methods.has(method)) as HTTPMethods[],
      config: describe('internal'),
      onRequest: async () => {
        throw new AppError('method_not_allowed', { allow });
      },
      handler: () => undefined,
    });
  }
}
