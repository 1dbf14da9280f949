import { PROBLEMS, type Problem, type ProblemCode, problemSchema } from '@bundoc/shared/contract/problem';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Answer, call, Installation } from './support/installation.ts';

let installation: Installation;
let token: string;
beforeAll(async () => {
  installation = await Installation.start({
    environment: { BUNDOC_MAX_DOCUMENT_BYTES: '4096' },
    settings: { batchBytesMax: 65_536 },
  });
  token = await installation.client();
});
afterAll(() => installation[Symbol.asyncDispose]());

const batch = (project: string, body: string, headers: Record<string, string> = {}, who = token) =>
  call(installation.url, `/v1/projects/${project}/batch`, { method: 'POST', token: who, body, headers });
const operations = (...list: readonly string[]) => `{"operations":[${list.join(',')}]}`;
const get = (project: string, id: string, collection = 'notes') =>
  call(installation.url, `/v1/projects/${project}/collections/${collection}/documents/${id}`, { token });
const put = (project: string, id: string, body = '{"v":1}') =>
  call(installation.url, `/v1/projects/${project}/collections/notes/documents/${id}`, {
    method: 'PUT',
    token,
    body,
  });
const own = (text: string) =>
  text.slice(text.indexOf('"_updated"') + '"_updated":"2026-01-01T00:00:00.000Z"'.length);
const PUT = (id: string, document = '{}', more = '') =>
  `{"op":"put","collection":"notes","id":"${id}","document":${document}${more}}`;

function problemIn(answer: Answer, code: ProblemCode): Problem {
  const problem = problemSchema.parse(answer.json());
  expect([answer.status, problem.code]).toEqual([PROBLEMS[code].status, code]);
  return problem;
}

describe('a batch', () => {
  it('applies operations on several collections, and answers each with its metadata', async () => {
    for (const id of ['replaced', 'patched', 'deleted', 'json'])
      await put('all', id, '{ "n": 1.10,"keep":1e400 }');
    const answer = await batch(
      'all',
      operations(
        '{"op":"create","collection":"notes","document":{"a":1}}',
        '{"op":"create","collection":"other","id":"made","document":{ "b":12345678901234567890 }}',
        PUT('replaced', '{"v" : 2.0}'),
        '{"op":"patch","collection":"notes","id":"patched","merge":{"n":2.20}}',
        '{"op":"patch","collection":"notes","id":"json","json":[{"op":"test","path":"/n","value":1.1},{"op":"remove","path":"/n"}]}',
        '{"op":"delete","collection":"notes","id":"deleted"}',
      ),
    );
    expect(answer.status).toBe(200);
    const { results } = answer.json() as { results: Record<string, unknown>[] };
    expect(results.map(({ _id, created, deleted }) => [_id, created, deleted])).toEqual([
      [expect.stringMatching(/^[0-9a-f-]{36}$/), true, undefined],
      ['made', true, undefined],
      ['replaced', false, undefined],
      ['patched', false, undefined],
      ['json', false, undefined],
      ['deleted', undefined, true],
    ]);
    expect(own((await get('all', 'made', 'other')).text)).toBe(', "b":12345678901234567890 }');
    expect(own((await get('all', 'replaced')).text)).toBe(',"v" : 2.0}');
    expect(own((await get('all', 'patched')).text)).toBe(', "n": 2.20,"keep":1e400 }');
    expect(own((await get('all', 'json')).text)).toBe(',"keep":1e400 }');
    expect((await get('all', 'deleted')).status).toBe(404);
    expect((await get('all', 'made', 'other')).headers['etag']).toBe(`"${results[1]?.['_rev']}"`);
  });

  it('keeps the exact bytes of a document, as a PUT does, without its metadata members', async () => {
    const rev = (await put('bytes', 'a')).json()['_rev'];
    const text = ` {\n "\\u005fid":"a", "x" : [ 1.0 ,{"_id":1}] ,"_rev":"${rev}", "é":"😀" } `;
    const answer = await batch('bytes', operations(PUT('a', text)));
    expect(answer.status).toBe(200);
    expect(own((await get('bytes', 'a')).text)).toBe(', "x" : [ 1.0 ,{"_id":1}] , "é":"😀" }');
  });

  it('a batch that is refused writes nothing, and lists every precondition that failed with the current ETag', async () => {
    const a = String((await put('refused', 'a')).json()['_rev']);
    const b = String((await put('refused', 'b')).json()['_rev']);
    const answer = await batch(
      'refused',
      operations(
        PUT('new'),
        PUT('a', '{}', ',"if_none_match":"*"'),
        '{"op":"create","collection":"notes","id":"b","document":{}}',
        PUT('absent', '{}', ',"if_match":"*"'),
        `{"op":"patch","collection":"notes","id":"c","merge":{}}`,
        `{"op":"delete","collection":"notes","id":"d"}`,
      ),
    );
    const exists = 'the document already exists';
    const missing = 'the document does not exist';
    expect(problemIn(answer, 'precondition_failed').errors).toEqual([
      { path: 'body.operations.1', message: exists, etag: `"${a}"` },
      { path: 'body.operations.2', message: exists, etag: `"${b}"` },
      { path: 'body.operations.3', message: missing },
      { path: 'body.operations.4', message: missing },
      { path: 'body.operations.5', message: missing },
    ]);
    expect((await get('refused', 'new')).status).toBe(404);
    const stale = '0'.repeat(24);
    const second = await batch(
      'refused',
      operations(
        PUT('new'),
        PUT('a', '{}', `,"if_match":"\\"${b}\\""`),
        PUT('b', `{"_rev":"${stale}"}`),
        `{"op":"delete","collection":"other","id":"a","if_match":"${a}"}`,
      ),
    );
    const other = 'the document is at another revision';
    expect(problemIn(second, 'precondition_failed').errors).toEqual([
      { path: 'body.operations.1', message: other, etag: `"${a}"` },
      { path: 'body.operations.2', message: other, etag: `"${b}"` },
      { path: 'body.operations.3', message: missing },
    ]);
    const patched = await batch(
      'refused',
      operations(
        PUT('new'),
        `{"op":"patch","collection":"notes","id":"a","merge":{"v":2},"if_match":"${stale}"}`,
      ),
    );
    expect(problemIn(patched, 'precondition_failed').errors).toEqual([
      { path: 'body.operations.1', message: other, etag: `"${a}"` },
    ]);
    expect((await get('refused', 'new')).status).toBe(404);
    expect(own((await get('refused', 'a')).text)).toBe(',"v":1}');
  });

  it('accepts each form of a precondition: a tag, a revision, a list, or any', async () => {
    const revs = await Promise.all(
      ['a', 'b', 'c', 'd'].map(async (id) => (await put('spelled', id)).json()['_rev']),
    );
    const answer = await batch(
      'spelled',
      operations(
        PUT('a', '{}', `,"if_match":"${revs[0]}"`),
        PUT('b', '{}', `,"if_match":", \\"${revs[1]}\\" ,"`),
        PUT('c', '{}', `,"if_match":"\\"x\\", \\"${revs[2]}\\""`),
        PUT('d', '{}', ',"if_match":"*"'),
      ),
    );
    expect(answer.status).toBe(200);
    const { _rev } = (await get('spelled', 'a')).json();
    const weak = operations(PUT('a', '{"v":2}', `,"if_match":"W/\\"${_rev}\\""`));
    expect(problemIn(await batch('spelled', weak), 'precondition_failed').errors).toHaveLength(1);
    expect((await get('spelled', 'a')).json()['_rev']).toBe(_rev);
  });

  it('a batch with a patch that does not apply writes nothing, and names that patch', async () => {
    await put('patches', 'a');
    const failing = operations(
      PUT('new'),
      '{"op":"patch","collection":"notes","id":"a","json":[{"op":"test","path":"/v","value":1},{"op":"test","path":"/v","value":2}]}',
    );
    expect(problemIn(await batch('patches', failing), 'patch_test_failed').errors).toEqual([
      { path: 'body.operations.1.json.1', message: 'the value is another one' },
    ]);
    expect((await get('patches', 'new')).status).toBe(404);
  });

  it('loses none of many concurrent patches', async () => {
    await put('many', 'a', '{}');
    await put('many', 'b', '{}');
    const patch = (id: string, n: number) =>
      `{"op":"patch","collection":"notes","id":"${id}","merge":{"m${n}":${n}}}`;
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, n) => batch('many', operations(patch('a', n), patch('b', n)))),
    );
    expect(answers.map(({ status }) => status)).toEqual(Array(8).fill(200));
    for (const id of ['a', 'b'])
      expect(Object.keys((await get('many', id)).json()).filter((name) => name.startsWith('m'))).toHaveLength(
        8,
      );
  });

  it('repeated with its idempotency key gets the first answer, with the ids that were generated', async () => {
    const headers = { 'idempotency-key': 'batch-1' };
    await put('again', 'a');
    const body = operations(
      '{"op":"create","collection":"notes","document":{"a":1}}',
      '{"op":"create","collection":"notes","id":"x","document":{"a":1}}',
      '{"op":"patch","collection":"notes","id":"a","json":[{"op":"test","path":"/v","value":1},{"op":"replace","path":"/v","value":2}]}',
    );
    const first = await batch('again', body, headers);
    expect(first.status).toBe(200);
    const again = await batch('again', body, headers);
    expect([again.status, again.text]).toEqual([200, first.text]);
    problemIn(await batch('again', operations(PUT('y')), headers), 'idempotency_mismatch');
  });

  it('creates a project, but not for operations that cannot succeed in an empty one', async () => {
    const failing = operations(PUT('a'), '{"op":"delete","collection":"notes","id":"b"}');
    expect(problemIn(await batch('fresh', failing), 'precondition_failed').errors).toEqual([
      { path: 'body.operations.1', message: 'the document does not exist' },
    ]);
    expect(await installation.stored.ids()).not.toContain('fresh');
    expect((await batch('fresh', operations(PUT('a')))).status).toBe(200);
    expect(await installation.stored.ids()).toContain('fresh');
  });

  it('requires the write scope, and the read scope as well when it patches', async () => {
    await put('scopes', 'a');
    const writer = await installation.client(['*'], ['docs:write']);
    const reader = await installation.client(['*'], ['docs:read']);
    const elsewhere = await installation.client(['other']);
    const patching = operations('{"op":"patch","collection":"notes","id":"a","merge":{}}');
    problemIn(await batch('scopes', patching, {}, writer), 'forbidden');
    problemIn(await batch('scopes', operations(PUT('b')), {}, reader), 'forbidden');
    problemIn(await batch('scopes', operations(PUT('b')), {}, elsewhere), 'forbidden');
    expect((await batch('scopes', operations(PUT('b')), {}, writer)).status).toBe(200);
  });

  it('accepts documents nested as deep as a PUT accepts, and no deeper', async () => {
    const nested = (depth: number) => `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`;
    expect((await batch('deep', operations(PUT('a', nested(100))))).status).toBe(200);
    problemIn(await batch('deep', operations(PUT('a', nested(101)))), 'invalid_json');
  });

  const deletion = '{"op":"delete","collection":"notes","id":"a"}';
  it.each([
    ['no operations', operations(), 'invalid_request'],
    ['no list', '{}', 'invalid_request'],
    ['an array', '[]', 'invalid_json'],
    ['an unknown member', '{"operations":[],"mode":1}', 'invalid_request'],
    ['501 operations', operations(...Array.from({ length: 501 }, (_, n) => PUT(`i${n}`))), 'invalid_request'],
    ['an unknown operation', operations('{"op":"merge","collection":"notes","id":"a"}'), 'invalid_request'],
    ['an operation that is not an object', operations('1'), 'invalid_request'],
    ['an unknown member of an operation', operations(PUT('a', '{}', ',"x":1')), 'invalid_request'],
    ['no document', operations('{"op":"put","collection":"notes","id":"a"}'), 'invalid_request'],
    ['a put without an id', operations('{"op":"put","collection":"notes","document":{}}'), 'invalid_request'],
    ['a bad id', operations(PUT('..')), 'invalid_request'],
    ['a bad collection', operations('{"op":"delete","collection":"a.b","id":"a"}'), 'invalid_request'],
    [
      'a bad id in a document',
      operations('{"op":"create","collection":"notes","document":{"_id":"a/b"}}'),
      'invalid_document',
    ],
    ['a document that is not an object', operations(PUT('a', '[]')), 'invalid_document'],
    ['another _id', operations(PUT('a', '{"_id":"b"}')), 'invalid_document'],
    ['another _collection', operations(PUT('a', '{"_collection":"b"}')), 'invalid_document'],
    ['a reserved name', operations(PUT('b'), PUT('a', '{"\\u005fx":1}')), 'invalid_document'],
    ['two revisions', operations(PUT('a', `{"_rev":"x"}`, ',"if_match":"\\"y\\""')), 'invalid_document'],
    [
      'both preconditions',
      operations(PUT('a', '{}', ',"if_match":"*","if_none_match":"*"')),
      'invalid_request',
    ],
    ['a bad if_match', operations(PUT('a', '{}', ',"if_match":"abc"')), 'invalid_request'],
    ['a bad if_none_match', operations(PUT('a', '{}', ',"if_none_match":"\\"x\\""')), 'invalid_request'],
    [
      'a precondition of a create',
      operations('{"op":"create","collection":"notes","document":{},"if_match":"*"}'),
      'invalid_request',
    ],
    [
      'a patch without a patch',
      operations('{"op":"patch","collection":"notes","id":"a"}'),
      'invalid_request',
    ],
    [
      'two patches in one operation',
      operations('{"op":"patch","collection":"notes","id":"a","merge":{},"json":[]}'),
      'invalid_request',
    ],
    [
      'a patch of metadata',
      operations('{"op":"patch","collection":"notes","id":"a","merge":{"_id":1}}'),
      'invalid_patch',
    ],
    [
      'an invalid patch',
      operations('{"op":"patch","collection":"notes","id":"a","json":[1]}'),
      'invalid_patch',
    ],
    ['the same document twice', operations(PUT('a'), deletion), 'invalid_request'],
    ['a duplicate name in a document', operations(PUT('a', '{"x":{"y":1,"y":2}}')), 'invalid_json'],
    ['__proto__ in a document', operations(PUT('a', '{"__proto__":1}')), 'invalid_json'],
    ['a document over the limit', operations(PUT('a', `{"a":"${'x'.repeat(4_090)}"}`)), 'payload_too_large'],
    [
      'a body over the limit',
      operations(...Array.from({ length: 20 }, (_, n) => PUT(`i${n}`, `{"a":"${'x'.repeat(4_000)}"}`))),
      'payload_too_large',
    ],
  ] as const)('with %s is refused, and writes nothing', async (_what, body, code) => {
    problemIn(await batch('never', body), code);
    expect(await installation.stored.ids()).not.toContain('never');
  });

  it('names the faulty operation in a refusal', async () => {
    const documents = await batch('never', operations(PUT('b'), PUT('a', '{"_x":1}')));
    expect(problemIn(documents, 'invalid_document').errors?.[0]?.path).toBe('body.operations.1');
    const ids = await batch('never', operations(PUT('b'), PUT('..')));
    expect(problemIn(ids, 'invalid_request').errors?.[0]?.path).toBe('body.operations.1.id');
  });

  it('refuses a query parameter, an unsupported type and an unsupported method', async () => {
    const path = '/v1/projects/never/batch';
    const headers = { 'content-type': 'text/plain' };
    problemIn(
      await call(installation.url, `${path}?x=1`, { method: 'POST', token, body: '{}' }),
      'invalid_request',
    );
    problemIn(
      await call(installation.url, path, { method: 'POST', token, body: '{}', headers }),
      'unsupported_media_type',
    );
    problemIn(await call(installation.url, path, { token }), 'method_not_allowed');
  });
});
