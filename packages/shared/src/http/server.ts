import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import Fastify, { type FastifyInstance, type FastifyRequest, type HTTPMethods } from 'fastify';
import type { ProblemCode } from '../contract/problem.ts';
import { AppError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { PROBLEM_CONTENT_TYPE, problemOf, replyProblem, toAppError } from './problem-reply.ts';

export interface HttpServerOptions {
  readonly logger: Logger;
  /** Largest body, bytes; beyond it 413. */
  readonly bodyBytesMax: number;
  /** Told of every refused or failed request, exactly once, before its answer is sent. Must not throw. */
  readonly onProblem?: (request: FastifyRequest, error: AppError) => void;
}

/** Longest time to receive a whole request, milliseconds. */
export const REQUEST_TIMEOUT_MS = 30_000;
const HEADER_BYTES_MAX = 16_384;
/** Decoded characters of one path parameter; the schemas bound the bytes more tightly. */
const PARAM_LENGTH_MAX = 1_024;

const METHODS: readonly HTTPMethods[] = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'];

/**
 * A Fastify instance with everything that both services have in common: limits, problem documents for every way to
 * fail (also those before routing), request ids, one log line a request, raw JSON bodies.
 *
 * Bodies reach the handlers as the client's bytes (`Buffer`), of `application/json` only and never compressed.
 * Once all routes are registered, call {@link refuseOtherMethods}.
 */
export function createHttpServer(options: HttpServerOptions): FastifyInstance {
  const newRequestId = requestIds();

  const fail = (thrown: unknown, request: FastifyRequest): AppError => {
    const error = toAppError(thrown);
    if (error.code === 'internal_error')
      options.logger.error({ reqId: request.id, err: error.cause }, 'request failed');
    options.onProblem?.(request, error);
    return error;
  };

  const app = Fastify({
    loggerInstance: options.logger,
    disableRequestLogging: true,
    genReqId: newRequestId,
    requestIdHeader: false,
    bodyLimit: options.bodyBytesMax,
    routerOptions: { maxParamLength: PARAM_LENGTH_MAX },
    exposeHeadRoutes: false,
    requestTimeout: REQUEST_TIMEOUT_MS,
    keepAliveTimeout: 65_000,
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    http: { maxHeaderSize: HEADER_BYTES_MAX, connectionsCheckingInterval: 5_000 },
    frameworkErrors: (error, request, reply) => {
      replyProblem(fail(error, request), request, reply);
    },
    clientErrorHandler: (error, socket) => answerClientError(error, socket, newRequestId()),
  }) as unknown as FastifyInstance;

  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (_request, body, done) => {
    done(null, body);
  });
  app.addHook('onRequest', async (request) => {
    if (request.headers['content-encoding'] !== undefined)
      throw new AppError('unsupported_media_type', { detail: 'the body must not have a Content-Encoding' });
  });
  app.addHook('onSend', async (_request, reply) => {
    reply.header('x-content-type-options', 'nosniff');
    if (!reply.hasHeader('cache-control')) reply.header('cache-control', 'no-store');
  });
  app.addHook('onResponse', async (request, reply) => {
    const status = reply.statusCode;
    const level = status >= 500 ? 'error' : status >= 400 ? 'info' : 'debug';
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
  });
  app.setErrorHandler((error, request, reply) => replyProblem(fail(error, request), request, reply));
  app.setNotFoundHandler((request, reply) =>
    replyProblem(fail(new AppError('not_found'), request), request, reply),
  );
  rememberMethods(app);
  return app;
}

/** Ids that differ between processes and are cheap: a random prefix and a count. Never taken from the client. */
function requestIds(): () => string {
  const prefix = randomBytes(6).toString('hex');
  let count = 0;
  return () => `${prefix}-${(++count).toString(36)}`;
}

/** What Node's HTTP parser refuses never reaches Fastify's hooks; it gets its problem document here. */
function answerClientError(error: NodeJS.ErrnoException, socket: Socket, requestId: string): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const code: ProblemCode =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? 'headers_too_large'
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? 'request_timeout'
        : 'invalid_request';
  const problem = problemOf(new AppError(code), requestId);
  const body = JSON.stringify(problem);
  socket.end(
    `HTTP/1.1 ${problem.status} ${problem.title}\r\nContent-Type: ${PROBLEM_CONTENT_TYPE}\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n${body}`,
  );
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
      onRequest: async () => {
        throw new AppError('method_not_allowed', { allow });
      },
      handler: () => undefined,
    });
  }
}
