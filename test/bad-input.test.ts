import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { PROBLEMS, type ProblemCode, problemSchema } from '@bundoc/shared/contract/problem';
import { PROBLEM_CONTENT_TYPE } from '@bundoc/shared/contract/problem-reply';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Answer, type Call, call, Installation } from './support/installation.ts';

let installation: Installation;
let token: string;
beforeAll(async () => {
  installation = await Installation.start();
  token = await installation.client();
});
afterAll(() => installation[Symbol.asyncDispose]());

const COLLECTION = '/v1/projects/bad/collections/notes/documents';
const LIMIT = 1_048_576;

function expectProblem(answer: Answer, code: ProblemCode): void {
  const problem = problemSchema.parse(answer.json());
  expect([answer.status, problem.code, problem.status]).toEqual([PROBLEMS[code].status, code, answer.status]);
  expect(answer.headers['content-type']).toBe(PROBLEM_CONTENT_TYPE);
  expect(problem.request_id).not.toBe('');
}

/** A refused request must write nothing: no project may exist afterwards. */
async function expectRefused(path: string, options: Call, code: ProblemCode): Promise<void> {
  expectProblem(await call(installation.url, path, { token, ...options }), code);
  expect(await installation.stored.ids()).toEqual([]);
}

const nested = (depth: number) => `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`;

describe('a body is refused, and nothing is written,', () => {
  const bodies: [string, string | Buffer, ProblemCode][] = [
    ['that is empty', '', 'invalid_json'],
    ['that is cut short', '{"a":1', 'invalid_json'],
    ['with a trailing comma', '{"a":1,}', 'invalid_json'],
    ['with a comment', '{"a":1}//', 'invalid_json'],
    ['with NaN', '{"a":NaN}', 'invalid_json'],
    ['with a raw control character', '{"a":"\n"}', 'invalid_json'],
    ['that is an array', '[{"a":1}]', 'invalid_json'],
    ['that is a string', '"a"', 'invalid_json'],
    ['that is a number', '1', 'invalid_json'],
    ['that is null', 'null', 'invalid_json'],
    ['with __proto__', '{"__proto__":{"a":1}}', 'invalid_json'],
    ['with __proto__ in escapes, deep inside', '{"a":[{"\\u005f\\u005fproto__":1}]}', 'invalid_json'],
    ['that nests 101 deep', nested(101), 'invalid_json'],
    ['of 200,000 brackets', '['.repeat(200_000), 'invalid_json'],
    ['with a reserved member', '{"_secret":1}', 'invalid_document'],
    ['with a reserved member in escapes', '{"\\u005fsecret":1}', 'invalid_document'],
    ['with a name twice', '{"a":1,"a":1}', 'invalid_json'],
    ['with a name twice, once in escapes', '{"a":1,"\\u0061":2}', 'invalid_json'],
    ['with a name twice, deep inside', '{"x":{"a":1,"a":2}}', 'invalid_json'],
    ['with a byte order mark', '\ufeff{"a":1}', 'invalid_json'],
    ['in UTF-16', Buffer.from('{"a":1}', 'utf16le'), 'invalid_json'],
    ['with invalid UTF-8', Buffer.from('7b2261223a22ff227d', 'hex'), 'invalid_json'],
    ['with an overlong encoding', Buffer.from('7b2261223a22c080227d', 'hex'), 'invalid_json'],
    ['with an _id that differs from the path', '{"_id":"other"}', 'invalid_document'],
    ['with a _collection that differs from the path', '{"_collection":"other"}', 'invalid_document'],
    ['with an _id that is not a string', '{"_id":1}', 'invalid_document'],
    ['one byte over the limit', `{"a":"${'x'.repeat(LIMIT - 7)}"}`, 'payload_too_large'],
  ];
  it.each(bodies)('%s', async (_name, body, code) => {
    await expectRefused(`${COLLECTION}/a`, { method: 'PUT', body }, code);
  });

  it('a body over the limit, with the limit', async () => {
    const answer = await call(installation.url, `${COLLECTION}/a`, {
      method: 'PUT',
      token,
      body: 'x'.repeat(LIMIT + 1),
    });
    expect(answer.json()['detail']).toBe(`a body may have ${LIMIT} bytes here`);
  });

  it.each([
    ['a _rev of another revision than If-Match', { 'if-match': '"x"' }, '{"_rev":"y"}', 'invalid_document'],
    ['If-Match without quotes', { 'if-match': 'x' }, '{}', 'invalid_request'],
    ['If-None-Match with a tag', { 'if-none-match': '"x"' }, '{}', 'invalid_request'],
    ['no content type', { 'content-type': '' }, '{}', 'unsupported_media_type'],
    ['text/plain', { 'content-type': 'text/plain' }, '{}', 'unsupported_media_type'],
    [
      'another charset',
      { 'content-type': 'application/json; charset=utf-16' },
      '{}',
      'unsupported_media_type',
    ],
    ['a Content-Encoding', { 'content-encoding': 'gzip' }, '{}', 'unsupported_media_type'],
    ['Content-Encoding identity', { 'content-encoding': 'identity' }, '{}', 'unsupported_media_type'],
  ] as const)('with %s', async (_name, headers, body, code) => {
    await expectRefused(`${COLLECTION}/a`, { method: 'PUT', body, headers }, code);
  });

  it('a body of an unsupported type is refused, and the refusal names the supported ones', async () => {
    const detailOf = async (method: string, type: string) => {
      const headers = { 'content-type': type };
      const answer = await call(installation.url, `${COLLECTION}/a`, { method, token, headers, body: '{}' });
      return answer.json()['detail'];
    };
    expect(await detailOf('PUT', 'text/plain')).toBe('a body of application/json is required');
    expect(await detailOf('PATCH', 'application/json')).toBe(
      'a body of application/merge-patch+json or application/json-patch+json or application/vnd.bundoc.update+json is required',
    );
  });

  it.each([
    ['..', '{"_id":".."}'],
    ['a slash', '{"_id":"a/b"}'],
    ['NUL', '{"_id":"a\\u0000"}'],
    ['nothing', '{"_id":""}'],
    ['513 bytes', `{"_id":"${'x'.repeat(513)}"}`],
    ['half a surrogate pair', '{"_id":"\\ud800"}'],
  ])('a body of a POST whose _id is %s is refused', async (_name, body) => {
    await expectRefused(COLLECTION, { method: 'POST', body }, 'invalid_document');
  });

  it('a POST with a precondition is refused', async () => {
    await expectRefused(
      COLLECTION,
      { method: 'POST', body: '{}', headers: { 'if-none-match': '*' } },
      'invalid_request',
    );
  });

  it('sent in chunks beyond the limit', async () => {
    const { hostname, port } = new URL(installation.url);
    const answer = await new Promise<{ status: number; text: string }>((resolve, reject) => {
      const request = httpRequest(
        {
          hostname,
          port,
          path: `${COLLECTION}/a`,
          method: 'PUT',
          headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        },
        (response) => {
          let text = '';
          response.on('data', (chunk: Buffer) => {
            text += chunk.toString();
          });
          response.on('end', () => resolve({ status: Number(response.statusCode), text }));
        },
      );
      request.on('error', reject);
      request.write('{"a":"');
      request.write('x'.repeat(LIMIT));
      request.end('"}');
    });
    expect([answer.status, JSON.parse(answer.text).code]).toEqual([413, 'payload_too_large']);
  });
});

describe('a path is refused, and nothing is written,', () => {
  const document = (id: string) => `${COLLECTION}/${id}`;
  const collection = (name: string) => `/v1/projects/bad/collections/${name}/documents/a`;
  const project = (name: string) => `/v1/projects/${name}/collections/notes/documents/a`;
  const paths: [string, string, ProblemCode][] = [
    ['with the id .', document('.'), 'invalid_request'],
    ['with the id ..', document('..'), 'invalid_request'],
    ['with the id .. in escapes', document('%2e%2E'), 'invalid_request'],
    ['with a slash in the id', document('a%2Fb'), 'invalid_request'],
    ['with a path upwards in the id', document('..%2f..%2f..%2fetc%2fpasswd'), 'invalid_request'],
    ['with NUL in the id', document('a%00'), 'invalid_request'],
    ['with a line break in the id', document('a%0d%0a'), 'invalid_request'],
    ['with a C1 control in the id', document('%c2%85'), 'invalid_request'],
    ['with an id of 513 bytes', document('x'.repeat(513)), 'invalid_request'],
    [
      'with an id of 513 bytes in 257 characters',
      document(`${encodeURIComponent('é').repeat(256)}x`),
      'invalid_request',
    ],
    ['with an id of 2,000 characters', document('x'.repeat(2_000)), 'uri_too_long'],
    ['with an empty id', document(''), 'not_found'],
    ['with invalid UTF-8 in the id', document('%ff'), 'invalid_request'],
    ['with an overlong slash in the id', document('%c0%af'), 'invalid_request'],
    ['with half an escape', document('a%2'), 'invalid_request'],
    ['with a dot in the collection', collection('a.b'), 'invalid_request'],
    ['with .. as the collection', collection('..'), 'invalid_request'],
    ['with a collection of 129 characters', collection('x'.repeat(129)), 'invalid_request'],
    ['with a percent-encoded space in the collection', collection('a%20b'), 'invalid_request'],
    ['with .. as the project', project('..'), 'invalid_request'],
    ['with .. in escapes as the project', project('%2e%2e'), 'invalid_request'],
    ['with a project that begins with -', project('-a'), 'invalid_request'],
    ['with an underscore in the project', project('a_b'), 'invalid_request'],
    ['with a project of 64 characters', project('x'.repeat(64)), 'invalid_request'],
    ['with a Kelvin sign in the project', project('%E2%84%AA'), 'invalid_request'],
    ['with NUL in the project', project('a%00b'), 'invalid_request'],
    ['with a slash in the project', project('a%2fb'), 'invalid_request'],
    ['with an unknown query parameter', `${document('a')}?rev=1`, 'invalid_request'],
    ['that does not exist', '/v1/nothing', 'not_found'],
    ['with a slash too many', `${document('a')}/`, 'not_found'],
  ];
  it.each(paths)('%s', async (_name, path, code) => {
    await expectRefused(path, { method: 'PUT', body: '{}' }, code);
  });

  it('with a slash in the id that is not encoded, and the refusal says that ids have none', async () => {
    const options: Call = { method: 'PUT', body: '{}' };
    await expectRefused(document('a/b'), options, 'not_found');
    const answer = await call(installation.url, document('a/b'), { token, ...options });
    expect(answer.json()['detail']).toBe('a document id has no "/"');
  });

  it.each(['POST', 'OPTIONS'])('under the method %s, with Allow', async (method) => {
    const answer = await call(installation.url, `${COLLECTION}/a`, { method, token });
    expectProblem(answer, 'method_not_allowed');
    expect(answer.headers['allow']).toBe('DELETE, GET, HEAD, PATCH, PUT');
  });

  it.each([
    ['raw non-ASCII characters', `PUT ${COLLECTION}/\xe9 HTTP/1.1\r\nHost: x\r\n\r\n`, 400],
    ['an unknown method', `BREW ${COLLECTION}/a HTTP/1.1\r\nHost: x\r\n\r\n`, 400],
    ['headers of 20 KiB', `GET / HTTP/1.1\r\nHost: x\r\nx-long: ${'x'.repeat(20_000)}\r\n\r\n`, 431],
  ])('a path with %s is refused, and nothing is written', async (_name, raw, status) => {
    const { hostname, port } = new URL(installation.url);
    const text = await new Promise<string>((resolve, reject) => {
      const socket = connect(Number(port), hostname, () => socket.write(raw, 'latin1'));
      let received = '';
      socket.on('data', (chunk) => {
        received += chunk.toString();
      });
      socket.on('close', () => resolve(received));
      socket.on('error', reject);
    });
    expect(text).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(text).toContain(PROBLEM_CONTENT_TYPE);
  });
});

describe('unusual but valid input is accepted:', () => {
  it.each([
    ['a body of exactly the limit', `{"a":"${'x'.repeat(LIMIT - 8)}"}`, {}],
    ['100 levels', nested(100), {}],
    ['constructor and prototype as names', '{"constructor":{"prototype":{"a":1}},"prototype":1}', {}],
    ['a charset of utf-8', '{"a":1}', { 'content-type': 'application/json; charset=UTF-8' }],
    [
      'names of 10,000 members',
      `{${Array.from({ length: 10_000 }, (_, n) => `"k${n}":${n}`).join(',')}}`,
      {},
    ],
  ])('%s', async (_name, body, headers) => {
    const path = '/v1/projects/good/collections/notes/documents/a';
    const put = await call(installation.url, path, { method: 'PUT', token, body, headers });
    expect(put.status).toBeLessThan(300);
    const read = (await call(installation.url, path, { token })).text;
    expect(read.endsWith(`,${body.slice(1)}`)).toBe(true);
  });
});
