import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AppError } from '../src/contract/app-error.ts';
import { allowOrigins, varyBy } from '../src/http/cors.ts';
import { createHttpServer, refuseOtherMethods } from '../src/http/server.ts';
import { createLogger } from '../src/logs/logger.ts';
import { type RawAnswer, sendRaw } from './raw-http.ts';

const ORIGIN = 'https://app.example';
const app = createHttpServer({
  logger: createLogger({ service: 'bundoc', level: 'silent' }),
  bodyBytesMax: 1_000,
});
let guarded = 0;

beforeAll(async () => {
  allowOrigins(app, [ORIGIN, 'http://127.0.0.1:5173']);
  const onRequest = async () => {
    guarded++;
    throw new AppError('unauthenticated');
  };
  app.put('/items/:id', { onRequest }, async () => ({}));
  app.get('/open', async (_request, reply) => {
    varyBy(reply, 'Accept');
    return {};
  });
  app.get('/stream', (_request, reply) => {
    reply.hijack();
    reply.raw.writeHead(200, { 'content-type': 'text/event-stream' }).end();
  });
  refuseOtherMethods(app);
  await app.listen({ port: 0, host: '127.0.0.1' });
});
afterAll(() => app.close());

function send(method: string, path: string, headers: Record<string, string>): Promise<RawAnswer> {
  const lines = Object.entries({ host: 'x', connection: 'close', ...headers }).map(
    ([name, value]) => `${name}: ${value}\r\n`,
  );
  const { port } = app.server.address() as AddressInfo;
  return sendRaw(port, `${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n`);
}

const preflight = (path: string, origin: string, headers = {}) =>
  send('OPTIONS', path, { origin, 'access-control-request-method': 'PUT', ...headers });
const corsOf = ({ headers }: RawAnswer) =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => name.startsWith('access-control-')));

const READABLE = {
  'access-control-allow-origin': ORIGIN,
  'access-control-expose-headers': 'ETag, Location, Retry-After, Allow, Accept-Patch, Content-Disposition',
};

describe('a page of an allowed origin', () => {
  it('gets its preflight answered without a token and without a call of the guard', async () => {
    const answer = await preflight('/items/1', ORIGIN);
    expect([answer.status, answer.body, answer.headers['vary'], guarded]).toEqual([204, '', 'Origin', 0]);
    expect(corsOf(answer)).toEqual({
      ...READABLE,
      'access-control-allow-methods': 'GET, HEAD, POST, PUT, PATCH, DELETE',
      'access-control-allow-headers':
        'Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, Last-Event-ID',
      'access-control-max-age': '7200',
    });
  });

  it.each([
    ['an answer', 'GET', '/open', 200],
    ['a hijacked stream', 'GET', '/stream', 200],
    ['the refusal of a guard', 'PUT', '/items/1', 401],
    ['an unknown path', 'GET', '/nothing', 404],
    ['another method', 'DELETE', '/open', 405],
    ['a path that is refused before routing', 'GET', '/%zz', 400],
  ])('may read %s', async (_what, method, path, status) => {
    const answer = await send(method, path, { origin: ORIGIN });
    expect(answer.status).toBe(status);
    expect(corsOf(answer)).toEqual(READABLE);
    expect(answer.headers['vary']).toBe(path === '/open' && status === 200 ? 'Origin, Accept' : 'Origin');
  });

  it('learns nothing about a path without an endpoint: its preflight is the usual 404', async () => {
    const answer = await preflight('/nothing', ORIGIN);
    expect([answer.status, corsOf(answer)]).toEqual([404, READABLE]);
  });
});

describe('a page of another origin', () => {
  it.each(['https://evil.example', 'http://app.example', `${ORIGIN}:444`, `${ORIGIN}.evil.example`, 'null'])(
    'is not allowed: %s',
    async (origin) => {
      for (const answer of [await preflight('/items/1', origin), await send('GET', '/open', { origin })]) {
        expect(corsOf(answer)).toEqual({});
        expect(answer.headers['vary']).toContain('Origin');
      }
      expect((await preflight('/items/1', origin)).status).toBe(405);
    },
  );

  it('gets the usual 405 for OPTIONS', async () => {
    expect((await send('OPTIONS', '/open', { origin: ORIGIN })).status).toBe(405);
    expect((await send('OPTIONS', '/open', { 'access-control-request-method': 'GET' })).status).toBe(405);
  });
});
