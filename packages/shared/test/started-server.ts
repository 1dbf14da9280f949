import type { AddressInfo } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { expect } from 'vitest';
import { AppError } from '../src/contract/app-error.ts';
import { PROBLEMS, type ProblemCode, problemSchema } from '../src/contract/problem.ts';
import { listen } from '../src/http/listen.ts';
import { createHttpServer, type HttpServerOptions, refuseOtherMethods } from '../src/http/server.ts';
import { createLogger } from '../src/logs/logger.ts';
import type { RawAnswer } from './raw-http.ts';

export const BODY_BYTES_MAX = 1_000;
export const SECRET = 'planted-secret';

interface Seen {
  readonly code: ProblemCode;
  readonly requestId: string;
}

export interface Running extends AsyncDisposable {
  readonly app: FastifyInstance;
  readonly port: number;
  readonly seen: Seen[];
  readonly logged: () => string;
}

/** A server with a few routes, on a free port. */
export async function start(
  options: Partial<HttpServerOptions> = {},
  routes: (app: FastifyInstance) => void = () => undefined,
): Promise<Running> {
  const seen: Seen[] = [];
  let log = '';
  const logger = createLogger({
    service: 'bundoc',
    level: 'trace',
    destination: {
      write: (line: string) => {
        log += line;
      },
    },
  });
  const app = createHttpServer({
    logger,
    bodyBytesMax: BODY_BYTES_MAX,
    onProblem: (request, error) => {
      seen.push({ code: error.code, requestId: request.id });
      return undefined;
    },
    ...options,
  });
  app.get('/items/:id', async (request) => request.params);
  app.post('/items', async (request) => ({ bytes: (request.body as Buffer | undefined)?.length ?? null }));
  app.get('/throws', async () => {
    throw new Error(`${SECRET} at /etc/shadow`, { cause: new Error(SECRET) });
  });
  app.get('/throws-a-string', async () => {
    throw SECRET;
  });
  app.get('/throws-with-status', async () => {
    throw Object.assign(new Error(SECRET), { statusCode: 404, code: 'UND_ERR_RESPONSE' });
  });
  app.get('/throws-late', async (_request, reply) => {
    reply
      .header('etag', '"x"')
      .header('content-length', '5')
      .header('cache-control', 'public')
      .type('text/html');
    throw new AppError('kms_unavailable', { retryAfterS: 2.2, cause: new Error(SECRET) });
  });
  routes(app);
  refuseOtherMethods(app);
  await listen(app, { port: 0, host: '127.0.0.1', prefix: '' });
  return {
    app,
    port: (app.server.address() as AddressInfo).port,
    seen,
    logged: () => log,
    [Symbol.asyncDispose]: () => app.close(),
  };
}

/** Checks every member and header of a refusal. */
export function expectProblem(answer: RawAnswer, code: ProblemCode): { request_id: string; detail?: string } {
  const { status, title } = PROBLEMS[code];
  expect(answer.status).toBe(status);
  expect(answer.headers['content-type']).toBe('application/problem+json; charset=utf-8');
  expect(answer.headers['cache-control']).toBe('no-store');
  expect(answer.headers['x-content-type-options']).toBe('nosniff');
  expect(Number(answer.headers['content-length'])).toBe(Buffer.byteLength(answer.body));
  const problem = problemSchema.strict().parse(JSON.parse(answer.body));
  expect(problem).toMatchObject({ code, status, title, type: 'about:blank' });
  expect(problem.request_id).toMatch(/^[0-9a-f]{12}-[0-9a-z]+$/);
  expect(answer.body).not.toContain(SECRET);
  expect(answer.body).not.toMatch(/node_modules|\.ts|\.js|FST_|HPE_|stack|\/etc/);
  return problem as { request_id: string; detail?: string };
}

export const get = (path: string, more = '') =>
  `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${more}\r\n`;
export const post = (body: string, headers: string, path = '/items') =>
  `POST ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${Buffer.byteLength(body)}\r\n${headers}\r\n${body}`;
export const JSON_TYPE = 'Content-Type: application/json\r\n';
