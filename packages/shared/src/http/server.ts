import { randomBytes } from 'node:crypto';
import type { IncomingMessage, Server, ServerOptions } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { Socket } from 'node:net';
import Fastify, {
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  LogController,
} from 'fastify';
import { AppError } from '../contract/app-error.ts';
import { defined } from '../contract/defined.ts';
import type { ProblemCode } from '../contract/problem.ts';
import { replyProblem, toAppError } from '../contract/problem-reply.ts';
import { type Counted, CountedLines } from '../logs/counted-lines.ts';
import type { Logger } from '../logs/logger.ts';
import { rememberRoutes } from '../openapi/registered-routes.ts';
import type { Drain } from '../process/drain.ts';
import { callerNetwork } from '../runtime/addresses.ts';
import { systemClock } from '../runtime/clock.ts';
import { createServer } from '../runtime/node-http.ts';
import { guardTls, type ServerTls, tlsOptionsOf } from '../tls/server-tls.ts';
import { AllowedMethods, methodNotAllowed } from './allowed-methods.ts';
import { limitAnswers } from './answer-bytes.ts';
import { type BodyDone, giveBackBody, limitBodies, readBody } from './body-bytes.ts';
import { answerClientError, endWithProblem } from './client-errors.ts';
import { coalesceWrites } from './coalesce-writes.ts';
import { type Begin, lingerBehindAnswer, oneAtATime } from './connection.ts';
import { connectionOf, limitForwarded } from './connection-limit.ts';
import { giveBackPlaces, passGate } from './gate-door.ts';
import { callerOf } from './guard.ts';
import { createHttpShares, type HttpShares } from './http-shares.ts';
import { listenInFront } from './listen.ts';
import { LoopTurns } from './loop-turns.ts';
import { isUtf8Type } from './media-type.ts';
import { RefusalDelay } from './refusal-delay.ts';
import { requestFault } from './request-fault.ts';

/** Why a request is refused. */
const REFUSAL = Symbol('refusal');

declare module 'fastify' {
  interface FastifyRequest {
    [REFUSAL]?: AppError;
  }
}

export interface HttpServerOptions {
  readonly logger: Logger;
  /** Largest body, bytes. Larger ones get 413. */
  readonly bodyBytesMax: number;
  /**
   * Called for every refused or failed request, exactly once, before its answer is sent. The answer waits for
   * the promise.
   */
  readonly onProblem?: (request: FastifyRequest, error: AppError) => Promise<void> | undefined;
  /**
   * The detail of the refusal of a request target without a route. It may depend on the target alone, because
   * nobody is authenticated.
   */
  readonly hintOf?: (target: string) => string | undefined;
  /** Plain HTTP when absent. */
  readonly tls?: ServerTls | undefined;
  /** While it is draining, answers close their connection. */
  readonly drain?: Drain | undefined;
  /** {@link REQUEST_TIMEOUT_MS} unless a test sets it. */
  readonly requestTimeoutMs?: number;
  /** {@link STALLED_TIMEOUT_MS} unless a test sets it. */
  readonly stalledTimeoutMs?: number;
  /** {@link CLOSE_GRACE_MS} unless a test sets it. */
  readonly closeGraceMs?: number;
  /** That of {@link RefusalDelay} unless a test sets it, milliseconds. */
  readonly refusalDelayMs?: number;
  /** The resources that its requests share with those of other listeners of the process. */
  readonly shares?: HttpShares;
  /** Called for each connection before it is counted. @returns false when it closed it. */
  readonly admit?: ((socket: Socket) => boolean) | undefined;
}

/** The times that a test of a whole service may set. */
export type HttpTimes = Pick<HttpServerOptions, 'requestTimeoutMs' | 'refusalDelayMs'>;

/** How long an idle connection stays open, milliseconds. Proxies close theirs earlier. */
export const KEEP_ALIVE_MS = 65_000;
/** Longest time of a TLS handshake, milliseconds. */
const HANDSHAKE_MS = 5_000;
/** Longest time to receive a whole request, milliseconds. A silent connection closes after it, too. */
export const REQUEST_TIMEOUT_MS = 30_000;
/**
 * Longest time without progress during a request or its answer, milliseconds. Without it, an answer that
 * nobody reads would stay in memory forever.
 */
export const STALLED_TIMEOUT_MS = 60_000;
/**
 * How long a closing server waits for its connections, milliseconds. Node does not count a connection as idle
 * if it has sent nothing or half a request. Such a connection would delay the stop until its own timeout.
 */
const CLOSE_GRACE_MS = 5_000;
const CHECKING_INTERVAL_MS = 5_000;
const HEADER_BYTES_MAX = 16_384;
/** Decoded characters of one path parameter. The schemas have tighter limits in bytes. */
const PARAM_LENGTH_MAX = 1_024;

/** Refusals whose detail names a bound and quotes nothing from the request. */
const LOGGED_WITH_DETAIL: ReadonlySet<ProblemCode> = new Set(['rate_limited', 'overloaded']);
/** Failures of this service whose cause is logged nowhere else. */
const LOGGED_WITH_CAUSE: ReadonlySet<ProblemCode> = new Set([
  'internal_error',
  'storage_unavailable',
  'disk_full',
]);

/**
 * Creates a Fastify instance with the common parts of both services: limits, request ids, log lines for
 * refusals, and raw JSON bodies. Every failure, even before routing, gets a problem document.
 *
 * Handlers receive bodies as the client's bytes (`Buffer`). Only uncompressed `application/json` is accepted.
 * Once all routes are registered, call {@link refuseOtherMethods}.
 */
export function createHttpServer(options: HttpServerOptions): FastifyInstance {
  const newRequestId = requestIds();
  const fail = failureReporter(options);
  let allowed: AllowedMethods | undefined;
  /** Why there is no route for a request. */
  const unrouted = (request: FastifyRequest): AppError => {
    const { url = '' } = request.raw;
    const allow = allowed?.at(url);
    // A wildcard route may have the method although the file below it does not exist.
    return allow === undefined || allow.includes(request.method)
      ? new AppError('not_found', { detail: options.hintOf?.(url) })
      : methodNotAllowed(allow);
  };
  const delay = new RefusalDelay(systemClock, options.refusalDelayMs);
  const clientErrorPorts = { newRequestId, delay };
  const shares = options.shares ?? createHttpShares();
  const { isProxy } = shares.connections;
  const app = Fastify({
    ...fastifyOptions(options),
    serverFactory: (handler, served) => createServerInFront(handler, served, options, shares),
    genReqId: newRequestId,
    ...defined({ trustProxy: isProxy }),
    frameworkErrors: (error, request, reply) => {
      void answer(fail(error, request), request, reply);
    },
    clientErrorHandler: (error, socket) => answerClientError(error, socket, clientErrorPorts),
  }) as unknown as FastifyInstance;

  if (options.tls !== undefined)
    guardTls(app, options.tls, (socket) => {
      // The client cannot read TLS, so the answer goes to the connection below.
      endWithProblem(connectionOf(socket)?.socket ?? socket, plainHttp(), newRequestId());
    });
  limitForwarded(app, shares.connections);
  closeInTime(app, options.closeGraceMs ?? CLOSE_GRACE_MS);
  limitBodies(app, shares);
  passGate(app, shares.gate);
  limitAnswers(app, shares);

  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', readUtf8);
  refuseFaultyRequests(app, unrouted);
  setAnswerHeaders(app, options.drain);
  coalesceWrites(app);
  logRequests(app, options.logger);
  const refuse = refuseIn(delay);
  app.setErrorHandler((thrown, request, reply) => {
    const failure = fail(thrown, request);
    const { code } = failure.error;
    if (code === 'payload_too_large' && !request.raw.complete) lingerBehindAnswer(request.raw);
    return refuse(failure, request, reply);
  });
  app.setNotFoundHandler((request, reply) => refuse(fail(unrouted(request), request), request, reply));
  allowed = new AllowedMethods(app);
  allowedByApp.set(app, allowed);
  rememberRoutes(app);
  return app;
}

/** The options that do not depend on the instance. */
function fastifyOptions(options: HttpServerOptions) {
  const requestTimeoutMs = options.requestTimeoutMs ?? REQUEST_TIMEOUT_MS;
  const nodeOptions = {
    maxHeaderSize: HEADER_BYTES_MAX,
    headersTimeout: requestTimeoutMs,
    requestTimeout: requestTimeoutMs,
    keepAliveTimeout: KEEP_ALIVE_MS,
    connectionsCheckingInterval: Math.min(CHECKING_INTERVAL_MS, requestTimeoutMs),
    // Node's own answer to a missing Host has no body, so a hook answers instead.
    requireHostHeader: false,
    // Node would use the first value of a duplicate header and ignore the others. Joined, they are invalid.
    joinDuplicateHeaders: true,
  };
  return {
    loggerInstance: options.logger,
    logController: new LogController({ disableRequestLogging: true }),
    // Nothing logs through a request's own logger: our lines contain the request id.
    childLoggerFactory: <L>(logger: L) => logger,
    requestIdHeader: false,
    bodyLimit: options.bodyBytesMax,
    routerOptions: { maxParamLength: PARAM_LENGTH_MAX },
    exposeHeadRoutes: true,
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    ...(options.tls === undefined
      ? { http: nodeOptions }
      : { https: { ...nodeOptions, ...tlsOptionsOf(options.tls), handshakeTimeout: HANDSHAKE_MS } }),
  } as const;
}

/** Creates the server of an instance, with listeners in front of it. */
function createServerInFront(
  handler: Begin,
  served: { readonly http?: ServerOptions; readonly https?: ServerOptions },
  { admit, tls, stalledTimeoutMs = STALLED_TIMEOUT_MS }: HttpServerOptions,
  { connections }: HttpShares,
): Server {
  const begin = oneAtATime(handler, new LoopTurns());
  const server =
    served.https === undefined
      ? createServer(served.http ?? {}, begin)
      : createTlsServer(served.https, begin);
  server.setTimeout(stalledTimeoutMs);
  // Node would answer an unknown expectation with a bare 417. RFC 9110, section 10.1.1, allows ignoring it.
  server.on('checkExpectation', begin);
  // A client that has ended its half still gets its answer. Node would end our half before the answer.
  (server as Server & { httpAllowHalfOpen: boolean }).httpAllowHalfOpen = true;
  listenInFront(server, {
    allowHalfOpen: tls === undefined,
    accept: (socket) => (admit?.(socket) ?? true) && connections.accept(socket),
  });
  return server;
}

interface Failure {
  readonly error: AppError;
  /** Resolves when the failure is reported; undefined when it is reported already. */
  readonly reported: Promise<void> | undefined;
}

/** Converts a thrown value to an AppError, and reports it. */
function failureReporter({ onProblem, logger }: HttpServerOptions) {
  return (thrown: unknown, request: FastifyRequest): Failure => {
    const error = toAppError(thrown, request);
    request[REFUSAL] = error;
    // The answer must not depend on the observer.
    const warn = (thrownByObserver: unknown): void =>
      logger.error({ reqId: request.id, err: thrownByObserver }, 'a refusal could not be reported');
    try {
      return { error, reported: onProblem?.(request, error)?.catch(warn) };
    } catch (thrownByObserver) {
      warn(thrownByObserver);
      return { error, reported: undefined };
    }
  };
}

/** Answers with a failure once it is reported. */
function answer({ error, reported }: Failure, request: FastifyRequest, reply: FastifyReply) {
  if (reported === undefined) return replyProblem(error, request, reply);
  return reported.then(() => replyProblem(error, request, reply));
}

// The hooks of the next three functions run for every request. With callbacks they need no promises.

/** Refuses invalid HTTP requests, and requests without a route, before their body is read. */
function refuseFaultyRequests(app: FastifyInstance, unrouted: (request: FastifyRequest) => AppError): void {
  app.addHook('onRequest', (request, reply, done) => {
    const fault = requestFault(request.raw);
    if (fault === undefined) {
      // Fastify requires a body of a QUERY before it reports that there is no route.
      const { raw } = request;
      if (raw.method === 'QUERY' && request.is404) done(unrouted(request));
      else done();
      return;
    }
    // The bytes after such a request may be anything.
    if (fault.code !== 'unsupported_media_type') reply.header('connection', 'close');
    done(fault);
  });
}

type Refuse = (failure: Failure, request: FastifyRequest, reply: FastifyReply) => unknown;

/** Sends refusals once they are reported. Refusals of a flood are delayed. */
function refuseIn(delay: RefusalDelay): Refuse {
  return (failure, request, reply) => {
    // At once, because the refusal may be delayed.
    giveBackPlaces(request);
    giveBackBody(request);
    if (failure.reported === undefined) request.body = undefined;
    const wait = delay.of(failure.error.code, request.ip);
    if (wait === undefined) return answer(failure, request, reply);
    return wait.then(() => answer(failure, request, reply));
  };
}

function setAnswerHeaders(app: FastifyInstance, drain: Drain | undefined): void {
  app.addHook('onSend', (_request, reply, payload, done) => {
    if (drain?.isDraining === true) reply.header('connection', 'close');
    reply.header('x-content-type-options', 'nosniff');
    if (!reply.hasHeader('cache-control')) reply.header('cache-control', 'no-store');
    done(null, payload);
  });
}

/** The signature was verified first, so it is a fault of a clock and not one of the client. */
const NOT_VALID_YET =
  "a genuine token is not valid yet: this machine's clock is behind that of BunKMS, which issued it; synchronize both by NTP";

function logRequests(app: FastifyInstance, logger: Logger): void {
  // The lines of tokens are counted separately, because addresses are unlimited.
  const strangers = new CountedLines();
  const callers = new CountedLines();
  const clocks = new CountedLines();
  app.addHook('onResponse', (request, reply, done) => {
    const error = request[REFUSAL];
    if (error !== undefined) {
      if (error.tokenFault === 'not valid yet')
        clocks.say('', '', (counted) => logger.warn({ reqId: request.id, ...counted }, NOT_VALID_YET));
      const refusals = callerOf(request).subject === undefined ? strangers : callers;
      logRefusal(logger, refusals, request, reply, error);
    } else if (logger.isLevelEnabled('debug')) logger.debug(toLogLine(request, reply), 'request');
    done();
  });
  app.addHook('onClose', async () => {
    strangers[Symbol.dispose]();
    callers[Symbol.dispose]();
    clocks[Symbol.dispose]();
  });
}

/** The error for a client that speaks HTTP to an HTTPS port. */
function plainHttp(): AppError {
  return new AppError('invalid_request', {
    detail:
      'this port speaks HTTPS: begin the URL with https://, and give the client the authority (curl --cacert ca.pem)',
  });
}

/** The parser of a content type. Handlers receive the bytes. */
export function readUtf8(request: FastifyRequest, payload: IncomingMessage, done: BodyDone): void {
  if (isUtf8Type(request.headers['content-type'])) readBody(request, payload, done);
  else done(new AppError('unsupported_media_type', { detail: 'the charset must be utf-8' }));
}

/**
 * Logs a refusal with the root of its token, or with its address if it has none. Each of these gets one line
 * a minute for each kind of refusal.
 */
function logRefusal(
  logger: Logger,
  refusals: CountedLines,
  request: FastifyRequest,
  reply: FastifyReply,
  error: AppError,
): void {
  const level = reply.statusCode >= 500 ? 'error' : 'info';
  if (!logger.isLevelEnabled(level)) return;
  const { code, tokenFault } = error;
  const kind = tokenFault === undefined ? code : `${code}: ${tokenFault}`;
  const caller = callerOf(request);
  const client = caller.subject ?? callerNetwork(request.ip);
  const tellLater = (counted: Counted) =>
    logger[level]({ client, kind, ...refusalsIn(counted) }, 'more refusals, not logged one by one');
  const counted = refusals.take(client, kind, tellLater, caller.project);
  if (counted === undefined) return;
  const line = {
    ...toLogLine(request, reply),
    code,
    ...defined({ tokenFault, ...caller, detail: LOGGED_WITH_DETAIL.has(code) ? error.detail : undefined }),
    ...refusalsIn(counted),
  };
  if (LOGGED_WITH_CAUSE.has(code)) logger.error({ ...line, err: error.cause ?? error }, 'request failed');
  else logger[level](line, 'request');
}

/** Members of a line that stands for refusals without a line of their own. */
function refusalsIn({ count, examples: projects, owner: client }: Counted) {
  return defined({ count, projects, client });
}

function toLogLine(request: FastifyRequest, reply: FastifyReply) {
  return {
    reqId: request.id,
    method: request.method,
    route: request.routeOptions.url ?? 'none',
    status: reply.statusCode,
    ms: Math.round(reply.elapsedTime * 10) / 10,
  };
}

/**
 * Request ids that are cheap and differ between processes: a random prefix and a count. Ids from clients are
 * never used.
 */
function requestIds(): () => string {
  const prefix = randomBytes(6).toString('hex');
  let count = 0;
  return () => `${prefix}-${(++count).toString(36)}`;
}

/** Closes, after a grace period, the connections that Node does not consider idle. */
function closeInTime(app: FastifyInstance, graceMs: number): void {
  let timer: NodeJS.Timeout | undefined;
  app.addHook('preClose', async () => {
    timer = setTimeout(() => app.server.closeAllConnections(), graceMs).unref();
  });
  app.addHook('onClose', async () => clearTimeout(timer));
}

const allowedByApp = new WeakMap<FastifyInstance, AllowedMethods>();

/**
 * Answers 405 with `Allow` on every path that exists under another method. Call it once, after all routes.
 */
export function refuseOtherMethods(app: FastifyInstance): void {
  allowedByApp.get(app)?.refuseOthers(app);
}
