import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { AppError } from '../src/contract/app-error.ts';
import type { ProblemCode } from '../src/contract/problem.ts';
import type { Claims } from '../src/contract/tokens.ts';
import { createGuard } from '../src/http/guard.ts';
import { REQUEST_TIMEOUT_MS } from '../src/http/server.ts';
import { createLogger } from '../src/logs/logger.ts';
import { openRaw, parseAnswer, readAll, sendRaw } from './raw-http.ts';
import {
  BODY_BYTES_MAX,
  expectProblem,
  get,
  JSON_TYPE,
  post,
  type Running,
  SECRET,
  start,
} from './started-server.ts';

let running: Running;
beforeAll(async () => {
  running = await start();
});
afterAll(() => running[Symbol.asyncDispose]());
afterEach(() => {
  running.seen.length = 0;
});

it('a body over the limit is discarded after its answer, so that the client gets it, without further effect', async () => {
  const socket = connect({ port: running.port, host: '127.0.0.1', allowHalfOpen: true });
  const body = Buffer.alloc(32 * 1_048_576, 'x');
  const faults: Error[] = [];
  socket.on('error', (error) => faults.push(error));
  socket.write(`POST /items HTTP/1.1\r\nHost: x\r\n${JSON_TYPE}Content-Length: ${body.length}\r\n\r\n`);
  socket.write(body);
  socket.end(get('/items/behind'));
  const chunks: Buffer[] = [];
  socket.on('data', (chunk) => chunks.push(chunk));
  await once(socket, 'close');
  expect(faults).toEqual([]);
  const text = Buffer.concat(chunks).toString();
  expect(text.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 413']);
  expectProblem(parseAnswer(text), 'payload_too_large');
});

describe('a refused request gets one problem document and is reported once', () => {
  const cases: readonly [string, ProblemCode, string | Buffer][] = [
    ['an unknown path', 'not_found', get('/nowhere')],
    ['the root', 'not_found', get('/')],
    ['a path with a trailing slash', 'not_found', get('/items/a/')],
    ['a bad percent-encoding', 'invalid_request', get('/items/%zz')],
    ['a percent-encoding of invalid UTF-8', 'invalid_request', get('/items/%ff')],
    ['a cut percent-encoding on no route', 'invalid_request', get('/nowhere/%')],
    ['a parameter that is too long', 'uri_too_long', get(`/items/${'a'.repeat(1_025)}`)],
    ['another method on a path that exists', 'method_not_allowed', get('/items')],
    ['TRACE', 'method_not_allowed', get('/items/a').replace('GET', 'TRACE')],
    ['DELETE where only POST exists', 'method_not_allowed', get('/items').replace('GET', 'DELETE')],
    ['a method that no route may have', 'method_not_allowed', get('/items/a').replace('GET', 'PROPFIND')],
    ['a body over the limit', 'payload_too_large', post('x'.repeat(BODY_BYTES_MAX + 1), JSON_TYPE)],
    [
      'a chunked body over the limit',
      'payload_too_large',
      `POST /items HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n${JSON_TYPE}\r\n3e9\r\n${'x'.repeat(1_001)}\r\n0\r\n\r\n`,
    ],
    ['a body without a type', 'unsupported_media_type', post('{}', '')],
    ['a body of another type', 'unsupported_media_type', post('{}', 'Content-Type: text/plain\r\n')],
    [
      'a type that only begins like JSON',
      'unsupported_media_type',
      post('{}', 'Content-Type: application/jsonx\r\n'),
    ],
    ['a form', 'unsupported_media_type', post('a=1', 'Content-Type: application/x-www-form-urlencoded\r\n')],
    ['an invalid type', 'unsupported_media_type', post('{}', 'Content-Type: json\r\n')],
    ['a compressed body', 'unsupported_media_type', post('{}', `${JSON_TYPE}Content-Encoding: gzip\r\n`)],
    [
      'a body with an identity coding',
      'unsupported_media_type',
      post('{}', `${JSON_TYPE}Content-Encoding: identity\r\n`),
    ],
    [
      'another charset',
      'unsupported_media_type',
      post('{}', 'Content-Type: application/json; charset=utf-16\r\n'),
    ],
    [
      'a quoted other charset',
      'unsupported_media_type',
      post('{}', 'Content-Type: application/json;charset="latin1"\r\n'),
    ],
    ['no Host header', 'invalid_request', 'GET /items/a HTTP/1.1\r\nConnection: close\r\n\r\n'],
    ['a thrown error', 'internal_error', get('/throws')],
    ['a thrown string', 'internal_error', get('/throws-a-string')],
    ['an error of an HTTP client that has a status', 'internal_error', get('/throws-with-status')],
    ['an error after headers were set', 'kms_unavailable', get('/throws-late')],
  ];

  it.each(cases)('%s → %s', async (_what, code, bytes) => {
    const answer = await sendRaw(running.port, bytes);
    const { request_id } = expectProblem(answer, code);
    expect(running.seen).toEqual([{ code, requestId: request_id }]);
  });
});

describe('a request that the HTTP parser refuses gets a problem document too', () => {
  const cases: readonly [string, ProblemCode, string | Buffer][] = [
    ['bytes that are not HTTP', 'invalid_request', 'hello\r\n\r\n'],
    ['TLS on a plain port', 'invalid_request', Buffer.from('16030100a5010000a1', 'hex')],
    ['an unknown method', 'invalid_request', get('/').replace('GET', 'GRAB')],
    ['a raw non-ASCII path', 'invalid_request', Buffer.from(get('/items/é'), 'utf8')],
    ['a path with a space', 'invalid_request', get('/items/a b')],
    ['headers over 16 KiB', 'headers_too_large', get('/items/a', `X: ${'a'.repeat(17_000)}\r\n`)],
    ['a URL over 16 KiB', 'headers_too_large', get(`/items/${'a'.repeat(17_000)}`)],
    ['a header without a name', 'invalid_request', get('/items/a', ': x\r\n')],
    ['a NUL in a header', 'invalid_request', get('/items/a', 'X: a\0b\r\n')],
    ['a folded header', 'invalid_request', get('/items/a', 'X: a\r\n b\r\n')],
    ['two different lengths', 'invalid_request', post('{}', `${JSON_TYPE}Content-Length: 3\r\n`)],
    [
      'a length and chunks at once',
      'invalid_request',
      post('0\r\n\r\n', `${JSON_TYPE}Transfer-Encoding: chunked\r\n`),
    ],
    [
      'a negative length',
      'invalid_request',
      `POST /items HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n${JSON_TYPE}\r\n`,
    ],
    [
      'an unknown transfer coding',
      'transfer_coding_unsupported',
      `POST /items HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n${JSON_TYPE}\r\n{}`,
    ],
  ];

  it.each(cases)('%s → %s', async (_what, code, bytes) => {
    const answer = await sendRaw(running.port, bytes);
    expectProblem(answer, code);
    expect(answer.headers['connection']).toBe('close');
  });

  it('a chunk that is malformed, after its request reached a route', async () => {
    const bytes = `POST /items HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n${JSON_TYPE}\r\nzz\r\n`;
    expectProblem(await sendRaw(running.port, bytes), 'invalid_request');
    expect(running.seen.length).toBeLessThanOrEqual(1);
  });
});

describe('an answer', () => {
  it('names all methods of a path, in Allow and for people', async () => {
    await using both = await start({}, (app) => {
      app.put('/both', async () => ({}));
      app.get('/both', async () => ({}));
    });
    const answer = await sendRaw(both.port, get('/both').replace('GET', 'PATCH'));
    expectProblem(answer, 'method_not_allowed');
    expect(answer.headers['allow']).toBe('GET, HEAD, PUT');
    expect(JSON.parse(answer.body).detail).toBe('it supports GET, HEAD, PUT');
  });

  it('an answer to a request beyond the body limit ends the connection', async () => {
    const bytes = post('x'.repeat(BODY_BYTES_MAX + 1), JSON_TYPE).replace('Connection: close\r\n', '');
    expect((await sendRaw(running.port, bytes)).headers['connection']).toBe('close');
  });

  it('drops the headers that the handler had set', async () => {
    const answer = await sendRaw(running.port, get('/throws-late'));
    expect(answer.headers['etag']).toBeUndefined();
    expect(answer.headers['retry-after']).toBe('3');
  });

  it('an answer to HEAD has the status and no body', async () => {
    const answer = await sendRaw(running.port, get('/nowhere').replace('GET', 'HEAD'));
    expect(answer.status).toBe(404);
    expect(answer.body).toBe('');
  });

  it('has its own request id, never one from the client', async () => {
    const chosen = 'X-Request-Id: chosen\r\nRequest-Id: chosen\r\n';
    const one = expectProblem(await sendRaw(running.port, get('/nowhere', chosen)), 'not_found');
    const two = expectProblem(await sendRaw(running.port, get('/nowhere', chosen)), 'not_found');
    expect(one.request_id).not.toBe(two.request_id);
    expect(one.request_id + two.request_id).not.toContain('chosen');
  });

  it.each([
    'application/json',
    'application/json; charset=utf-8',
    'application/json;charset=UTF-8',
    'application/json; charset="utf-8"',
    'Application/JSON',
    'application/json; profile=x',
  ])('is given to a body of type %s', async (type) => {
    const answer = await sendRaw(running.port, post('{"a":1}', `Content-Type: ${type}\r\n`));
    expect(answer.status).toBe(200);
    expect(JSON.parse(answer.body)).toEqual({ bytes: 7 });
    expect(answer.headers['cache-control']).toBe('no-store');
    expect(answer.headers['x-content-type-options']).toBe('nosniff');
    expect(running.seen).toEqual([]);
  });

  it('is given to a body of exactly the limit', async () => {
    const answer = await sendRaw(running.port, post('x'.repeat(BODY_BYTES_MAX), JSON_TYPE));
    expect(JSON.parse(answer.body)).toEqual({ bytes: BODY_BYTES_MAX });
  });

  it('is given to a request with an unknown expectation', async () => {
    expect((await sendRaw(running.port, get('/items/a', 'Expect: tea\r\n'))).status).toBe(200);
  });

  it('does not treat a missing body as a server error', async () => {
    const answer = await sendRaw(running.port, post('', ''));
    expect(JSON.parse(answer.body)).toEqual({ bytes: null });
  });

  it('has the cause of a failure in the log only', async () => {
    await using own = await start();
    const { request_id } = expectProblem(await sendRaw(own.port, get('/throws')), 'internal_error');
    const line = own
      .logged()
      .split('\n')
      .find((text) => text.includes('request failed'));
    expect(JSON.parse(line ?? '{}')).toMatchObject({ level: 'error', reqId: request_id });
    expect(line).toContain(SECRET);
  });

  it('an answer that repeats a refusal of the same client is counted in the log, not logged again', async () => {
    await using own = await start();
    for (let n = 0; n < 20; n++) await sendRaw(own.port, get('/throws'));
    for (let n = 0; n < 20; n++) await sendRaw(own.port, get('/nowhere'));
    await own.app.close();
    const lines = own
      .logged()
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as { msg: string; code?: string; kind?: string; count?: number });
    for (const code of ['internal_error', 'not_found']) {
      const single = lines.filter((line) => line.code === code).length;
      const counted = lines
        .filter((line) => line.kind === code || line.code === code)
        .reduce((sum, { count = 0 }) => sum + count, 0);
      expect(single).toBeLessThan(10);
      expect(single + counted).toBe(20);
    }
  });

  it('is logged with the root of its token, its project and the bound, in one line for each root', async () => {
    const guard = createGuard(
      (request) => {
        const { jti } = request.query as { readonly jti?: string };
        if (jti === undefined) throw new AppError('unauthenticated');
        return { jti, ...(jti === 'other' ? {} : { root: 'root-1' }), projects: [] } as unknown as Claims;
      },
      (_claims, request) => {
        const { project } = request.query as { readonly project?: string };
        if (project === undefined) throw new AppError('forbidden', { detail: 'of the request' });
        return project;
      },
    );
    await using own = await start({}, (app) =>
      app.get('/limited', { onRequest: guard }, async () => {
        throw new AppError('rate_limited', { detail: 'your share of answers is in use' });
      }),
    );
    for (const query of ['jti=a&project=p', 'jti=b&project=q', 'jti=other&project=r', 'jti=a', ''])
      await sendRaw(own.port, get(`/limited?${query}`));
    await own.app.close();
    const lines = own
      .logged()
      .split('\n')
      .filter((line) => line.includes('"code"') || line.includes('"kind"'))
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    const share = 'your share of answers is in use';
    expect(lines.map(({ code, subject, project, detail }) => [code, subject, project, detail])).toEqual([
      ['rate_limited', 'root-1', 'p', share],
      ['rate_limited', 'other', 'r', share],
      ['forbidden', 'root-1', undefined, undefined],
      ['unauthenticated', undefined, undefined, undefined],
      // The second refusal of the same root.
      [undefined, undefined, undefined, undefined],
    ]);
    expect(lines.at(-1)).toMatchObject({ client: 'root-1', kind: 'rate_limited', count: 1, projects: ['q'] });
  });

  it('an answer that keeps failing logs one line for each kind at level error, and counts the rest', async () => {
    const written: string[] = [];
    const destination = { write: (line: string) => void written.push(line) };
    const logger = createLogger({ service: 'bundoc', level: 'error', destination });
    await using own = await start({ logger });
    const sent = { internal_error: 0, kms_unavailable: 0 };
    for (let n = 0; n < 50; n++) {
      const paths = ['/throws', '/throws', '/throws-late', '/nowhere'];
      await Promise.all(paths.map((path) => sendRaw(own.port, get(path))));
      sent.internal_error += 2;
      sent.kms_unavailable++;
    }
    await own.app.close();
    const lines = written.map(
      (line) => JSON.parse(line) as { level: string; code?: string; kind?: string; count?: number },
    );
    expect(new Set(lines.map(({ level }) => level))).toEqual(new Set(['error']));
    expect(new Set(lines.map(({ code, kind }) => code ?? kind))).toEqual(new Set(Object.keys(sent)));
    for (const [code, all] of Object.entries(sent)) {
      const single = lines.filter((line) => line.code === code);
      const more = lines.filter((line) => line.kind === code);
      // Closing writes the remaining counts.
      expect([single.length, more.length]).toEqual([1, 1]);
      const counted = [...single, ...more].reduce((sum, { count = 0 }) => sum + count, 0);
      expect(single.length + counted).toBe(all);
    }
  });

  it('is logged with its route pattern, never with its path, query or headers', async () => {
    await using own = await start();
    await sendRaw(own.port, get(`/items/${SECRET}?q=${SECRET}`, `Authorization: Bearer ${SECRET}\r\n`));
    await sendRaw(own.port, get(`/${SECRET}/%zz`));
    await sendRaw(own.port, get(`/${SECRET}`));
    expect(own.logged()).toContain('"route":"/items/:id"');
    expect(own.logged()).not.toContain(SECRET);
  });
});

describe('a connection', () => {
  it('a connection whose request does not arrive in time gets 408 and is closed', async () => {
    await using hurried = await start({ requestTimeoutMs: 50 });
    for (const bytes of [
      'GET /items/a HTTP/1.1\r\nHost:',
      `POST /items HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n${JSON_TYPE}\r\n{`,
    ]) {
      expectProblem(await sendRaw(hurried.port, bytes), 'request_timeout');
    }
    expect(hurried.seen.length).toBeLessThanOrEqual(1);
  });

  it('a connection that is refused closes even if the client never closes its side', async () => {
    const accepted = once(running.app.server, 'connection') as Promise<[Socket]>;
    const socket = connect({ port: running.port, host: '127.0.0.1', allowHalfOpen: true });
    socket.write('garbage\r\n\r\n');
    const [peer] = await accepted;
    await once(peer, 'close');
    socket.destroy();
  });

  it('serves several requests with separate answers', async () => {
    const socket = openRaw(running.port);
    const text = readAll(socket);
    for (const path of ['/items/a', '/nowhere']) {
      socket.write(get(path).replace('Connection: close\r\n', ''));
      await once(socket, 'data');
    }
    socket.write(get('/items/b'));
    const answers = (await text).split(/(?=HTTP\/1\.1 )/).map(parseAnswer);
    expect(answers.map((answer) => answer.status)).toEqual([200, 404, 200]);
    expect(running.seen).toHaveLength(1);
  });

  it('a connection that the client drops in the middle of a body does not affect others', async () => {
    const socket = openRaw(running.port);
    await once(socket, 'connect');
    socket.write(`POST /items HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n${JSON_TYPE}\r\n{`);
    socket.resetAndDestroy();
    expect((await sendRaw(running.port, get('/items/a'))).status).toBe(200);
  });
});

describe('a slow client', () => {
  it('can hold an answer that it does not read only for a bounded time', async () => {
    await using server = await start({ stalledTimeoutMs: 100 }, (app) => {
      app.get('/big', async () => 'x'.repeat(32_000_000));
    });
    const accepted = once(server.app.server, 'connection') as Promise<[Socket]>;
    const socket = openRaw(server.port);
    socket.on('error', () => undefined);
    socket.pause();
    socket.write(get('/big'));
    const [peer] = await accepted;
    await once(peer, 'close');
    socket.destroy();
  });
});

describe('closing', () => {
  const keepAlive = get('/items/a').replace('Connection: close\r\n', '');

  it('closes idle connections at once', async () => {
    const server = await start();
    const socket = openRaw(server.port);
    socket.write(keepAlive);
    await once(socket, 'data');
    const ended = once(socket, 'close');
    // Other timeouts that would close them never fire.
    vi.useFakeTimers({ toFake: ['setTimeout'] });
    try {
      await server.app.close();
      await ended;
    } finally {
      vi.useRealTimers();
    }
  });

  it('does not wait for connections that have sent nothing or half a request', async () => {
    const server = await start({ closeGraceMs: 50 });
    const silent = openRaw(server.port);
    const half = openRaw(server.port);
    for (const socket of [silent, half]) socket.on('error', () => undefined);
    const ended = [once(silent, 'close'), once(half, 'close')];
    await once(silent, 'connect');
    half.write('GET / HTTP/1.1\r\n');
    await sendRaw(server.port, get('/items/a')); // Both were accepted before this request.
    const started = performance.now();
    await server.app.close();
    await Promise.all(ended);
    expect(performance.now() - started).toBeLessThan(REQUEST_TIMEOUT_MS);
  });

  it('lets a running request finish', async () => {
    const { promise: arrived, resolve: arrive } = Promise.withResolvers<void>();
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    const server = await start({}, (app) => {
      app.get('/slow', async () => {
        arrive();
        await released;
        return { done: true };
      });
    });
    const answer = sendRaw(server.port, get('/slow').replace('Connection: close\r\n', ''));
    await arrived;
    const closed = server.app.close();
    release();
    expect(await answer).toMatchObject({ status: 200, body: '{"done":true}' });
    await closed;
  });
});
