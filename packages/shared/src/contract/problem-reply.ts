import type { FastifyReply, FastifyRequest } from 'fastify';
import { AppError } from './app-error.ts';
import { defined } from './defined.ts';
import { PROBLEMS, type Problem } from './problem.ts';

export const PROBLEM_CONTENT_TYPE = 'application/problem+json; charset=utf-8';

/** Fastify's own errors, by code. */
function fromFramework(code: string, request: FastifyRequest | undefined): AppError | undefined {
  switch (code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return new AppError('payload_too_large');
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return new AppError('unsupported_media_type', { detail: request && typesTakenBy(request) });
    case 'FST_ERR_CTP_INVALID_CONTENT_LENGTH':
      return new AppError('invalid_request', { detail: 'the body does not have the announced length' });
    case 'FST_ERR_BAD_URL':
      return new AppError('invalid_request', { detail: 'the path is not validly percent-encoded' });
    case 'FST_ERR_MAX_PARAM_LENGTH':
      return new AppError('uri_too_long');
    case 'FST_ERR_NOT_FOUND':
      return new AppError('not_found');
    default:
      return undefined;
  }
}

/** The content types of a route's bodies; undefined for a route that takes none. */
function typesTakenBy({ routeOptions }: FastifyRequest): string | undefined {
  const { openapi } = routeOptions.config;
  if (openapi === undefined || openapi === 'internal' || openapi.body === undefined) return undefined;
  return `a body of ${Object.keys(openapi.body.content).join(' or ')} is required`;
}

/** Converts a thrown value to an AppError. Any other error becomes `internal_error`, with its cause. */
export function toAppError(error: unknown, request?: FastifyRequest): AppError {
  if (error instanceof AppError) return error;
  if (error instanceof Error) {
    const { code, statusCode } = error as Error & { code?: unknown; statusCode?: unknown };
    const known = typeof code === 'string' ? fromFramework(code, request) : undefined;
    if (known !== undefined) return known;
    // Only Fastify's own errors count: an error of an HTTP client has the status of another server.
    const isFastifys = typeof code === 'string' && (code.startsWith('FST_') || code === 'ECONNRESET');
    if (isFastifys && typeof statusCode === 'number' && statusCode >= 400 && statusCode < 500)
      return new AppError('invalid_request', { cause: error });
  }
  return new AppError('internal_error', { cause: error });
}

/** The problem document of an error (RFC 9457). */
export function problemOf(error: AppError, requestId: string): Problem {
  const { status, title } = PROBLEMS[error.code];
  return {
    type: 'about:blank',
    title,
    status,
    ...defined({ detail: error.detail }),
    code: error.code,
    request_id: requestId,
    ...(error.errors === undefined ? {} : { errors: [...error.errors] }),
    ...defined({ storage: error.storage, outside_key: error.outsideKey, until: error.until }),
  };
}

const ENTITY_HEADERS = ['content-length', 'content-encoding', 'etag', 'last-modified', 'location'] as const;

/**
 * The value of `WWW-Authenticate` (RFC 6750, section 3). It says that the token is invalid, but never why.
 */
function challengeOf({ code, tokenFault }: AppError): string | undefined {
  if (code === 'forbidden') return 'Bearer error="insufficient_scope"';
  if (PROBLEMS[code].status !== 401) return undefined;
  return tokenFault === 'absent' ? 'Bearer' : 'Bearer error="invalid_token"';
}

/** Answers a request with a problem document. */
export function replyProblem(error: AppError, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const problem = problemOf(error, request.id);
  // Headers that the handler set for its own answer do not describe this one.
  for (const name of ENTITY_HEADERS) reply.removeHeader(name);
  reply
    .code(problem.status)
    .header('content-type', PROBLEM_CONTENT_TYPE)
    .header('cache-control', 'no-store')
    .header('x-content-type-options', 'nosniff');
  const retryAfterS = error.retryAfterS ?? (problem.status === 503 ? 1 : undefined);
  if (retryAfterS !== undefined) reply.header('retry-after', String(Math.max(1, Math.ceil(retryAfterS))));
  if (error.allow !== undefined) reply.header('allow', error.allow.join(', '));
  const challenge = challengeOf(error);
  if (challenge !== undefined) reply.header('www-authenticate', challenge);
  return reply.send(JSON.stringify(problem));
}
