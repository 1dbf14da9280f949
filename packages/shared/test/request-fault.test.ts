import { once } from 'node:events';
import { METHODS } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AppError } from '../src/contract/app-error.ts';
import type { ProblemCode } from '../src/contract/problem.ts';
import { openRaw, parseAnswer, readAll, sendRaw } from './raw-http.ts';
import { expectProblem, get, JSON_TYPE, post, type Running, start } from './started-server.ts';

let running: Running;
let written = 0;
beforeAll(async () => {
  running = await start({}, (app) => {
    app.put('/write', async () => {
      written++;
      return {};
    });
    app.put(
      '/refused/:code',
      {
        onRequest: async (request) => {
          throw new AppError((request.params as { code: ProblemCode }).code);
        },
      },
      async () => ({}),
    );
  });
});
afterAll(() => running[Symbol.asyncDispose]());

const write = (headers: string, line = 'PUT /write HTTP/1.1') =>
  `${line}\r\n${headers}${JSON_TYPE}Connection: close\r\nContent-Length: 2\r\n\r\n{}`;

describe('a faulty request is refused, has no effect, and ends its connection', () => {
  const cases: readonly [string, ProblemCode, string][] = [
    ['no Host', 'invalid_request', write('')],
    ['two hosts', 'invalid_request', write('Host: x\r\nHost: y\r\n')],
    ['the same host twice', 'invalid_request', write('Host: x\r\nhost: x\r\n')],
    ['an empty Host', 'invalid_request', write('Host:\r\n')],
    ['a host with a space', 'invalid_request', write('Host: a b\r\n')],
    ['a host with a user', 'invalid_request', write('Host: a@b\r\n')],
    ['a host with a path', 'invalid_request', write('Host: a/b\r\n')],
    ['a port that is not a number', 'invalid_request', write('Host: a:b\r\n')],
    ['an address without its bracket', 'invalid_request', write('Host: [::1\r\n')],
    ['two hosts in HTTP/1.0', 'invalid_request', write('Host: x\r\nHost: y\r\n', 'PUT /write HTTP/1.0')],
    ['HTTP/2.0', 'http_version_unsupported', write('Host: x\r\n', 'PUT /write HTTP/2.0')],
    ['HTTP/0.9', 'http_version_unsupported', write('Host: x\r\n', 'PUT /write HTTP/0.9')],
    ['HTTP/3.0', 'http_version_unsupported', write('Host: x\r\n', 'PUT /write HTTP/3.0')],
    ['HTTP/1.2', 'http_version_unsupported', write('Host: x\r\n', 'PUT /write HTTP/1.2')],
    ['a request line without a version', 'http_version_unsupported', 'GET /items/a\r\n\r\n'],
    ['the preface of HTTP/2', 'http_version_unsupported', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    ['an asterisk in place of a path', 'invalid_request', get('*')],
    ['a fragment', 'invalid_request', write('Host: x\r\n', 'PUT /write#a HTTP/1.1')],
    ['a fragment after a query', 'invalid_request', get('/items/a?b#c')],
    ...['gzip', 'gzip, chunked', 'chunked, gzip', 'identity'].map((coding): [string, ProblemCode, string] => [
      `Transfer-Encoding: ${coding}`,
      'transfer_coding_unsupported',
      `PUT /write HTTP/1.1\r\nHost: x\r\n${JSON_TYPE}Transfer-Encoding: ${coding}\r\n\r\n2\r\n{}\r\n0\r\n\r\n`,
    ]),
    [
      'a transfer coding in HTTP/1.0',
      'invalid_request',
      `PUT /write HTTP/1.0\r\nHost: x\r\n${JSON_TYPE}Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n`,
    ],
    ['two types of content', 'unsupported_media_type', write(`Host: x\r\n${JSON_TYPE}`)],
  ];

  it.each(cases)('%s → %s', async (_what, code, bytes) => {
    const before = written;
    const answer = await sendRaw(running.port, bytes);
    expectProblem(answer, code);
    expect(answer.headers['connection']).toBe('close');
    expect(written).toBe(before);
  });

  it.each(['x', 'x:', 'x:8080', '127.0.0.1:1', '[::1]:1', '[::1]', 'a-b.example', 'a%20b'])(
    'except one for the valid host %s',
    async (host) => {
      expect((await sendRaw(running.port, write(`Host: ${host}\r\n`))).status).toBe(200);
    },
  );

  it('except one of HTTP/1.0 without a host', async () => {
    expect((await sendRaw(running.port, write('', 'PUT /write HTTP/1.0'))).status).toBe(200);
  });
});

describe('a method that a path does not support', () => {
  const others = METHODS.filter((method) => !['GET', 'HEAD', 'CONNECT'].includes(method));
  it.each(others)('is refused with 405 and Allow: %s', async (method) => {
    const answer = await sendRaw(running.port, get('/items/a?b=c').replace('GET', method));
    expectProblem(answer, 'method_not_allowed');
    expect(answer.headers['allow']).toBe('GET, HEAD');
  });

  it('is 404 where the path ends with a slash in place of a name', async () => {
    for (const method of ['POST', 'DELETE']) {
      const answer = await sendRaw(running.port, get('/items/').replace('GET', method));
      expect(expectProblem(answer, 'not_found').detail).toContain('leave the "/" out');
    }
  });

  it('is 404 on an unknown path', async () => {
    expectProblem(await sendRaw(running.port, get('/none').replace('GET', 'PROPFIND')), 'not_found');
  });

  it.each(['GRAB', 'get', 'POSTS', 'M', 'X-1'])('is a bad request if it is unknown: %s', async (method) => {
    const answer = await sendRaw(running.port, get('/items/a').replace('GET', method));
    expect(expectProblem(answer, 'invalid_request').detail).toBe('the method is unknown');
  });

  it('is refused after the answer to the previous request', async () => {
    const socket = openRaw(running.port);
    const text = readAll(socket);
    socket.write(write('Host: x\r\n').replace('Connection: close\r\n', ''));
    await once(socket, 'data');
    socket.write(get('/items/a').replace('GET', 'GRAB'));
    const answers = (await text).split(/(?=HTTP\/1\.1 \d)/).map(parseAnswer);
    expect(answers.map(({ status }) => status)).toEqual([200, 400]);
  });

  it('ends a connection that asks for a tunnel', async () => {
    const socket = openRaw(running.port);
    socket.write('CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n');
    expect(await readAll(socket)).toBe('');
  });
});

describe('HEAD', () => {
  it('is supported wherever GET is, with the same headers and no body', async () => {
    const [got, head] = [
      await sendRaw(running.port, get('/items/a')),
      await sendRaw(running.port, get('/items/a').replace('GET', 'HEAD')),
    ];
    expect([head.status, head.body]).toEqual([200, '']);
    for (const name of ['content-length', 'content-type', 'cache-control'])
      expect(head.headers[name]).toBe(got.headers[name]);
  });
});

describe('a client that expects 100 (Continue)', () => {
  it('gets it, and keeps its connection', async () => {
    const socket = openRaw(running.port);
    socket.write(
      `PUT /write HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n${JSON_TYPE}Content-Length: 2\r\n\r\n`,
    );
    const [first] = (await once(socket, 'data')) as [Buffer];
    expect(first.toString()).toBe('HTTP/1.1 100 Continue\r\n\r\n');
    const text = readAll(socket);
    socket.write('{}');
    await once(socket, 'data');
    socket.write(get('/items/a'));
    const answers = (await text).split(/(?=HTTP\/1\.1 \d)/).map(parseAnswer);
    expect(answers.map(({ status }) => status)).toEqual([200, 200]);
  });

  it('may send its body at once', async () => {
    const text = await readAll(
      (() => {
        const socket = openRaw(running.port);
        socket.write(post('{}', `${JSON_TYPE}Expect: 100-continue\r\n`));
        return socket;
      })(),
    );
    expect(text).toContain('HTTP/1.1 200');
  });
});
