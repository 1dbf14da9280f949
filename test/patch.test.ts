import { PROBLEMS, type ProblemCode, problemSchema } from '@bundoc/shared/contract/problem';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Answer, call, Installation } from './support/installation.ts';

let installation: Installation;
let token: string;
beforeAll(async () => {
  installation = await Installation.start({ environment: { BUNDOC_MAX_DOCUMENT_BYTES: '4096' } });
  token = await installation.client();
});
afterAll(() => installation[Symbol.asyncDispose]());

const MERGE = 'application/merge-patch+json';
const JSON_PATCH = 'application/json-patch+json';
const UPDATE = 'application/vnd.bundoc.update+json';
const path = (id: string, project = 'patched') => `/v1/projects/${project}/collections/notes/documents/${id}`;
const get = async (id: string) => (await call(installation.url, path(id), { token })).text;
const put = (id: string, body: string) => call(installation.url, path(id), { method: 'PUT', token, body });
const patch = (
  id: string,
  type: string,
  body: string | Buffer,
  headers: Record<string, string> = {},
  who = token,
): Promise<Answer> =>
  call(installation.url, path(id), {
    method: 'PATCH',
    token: who,
    body,
    headers: { 'content-type': type, ...headers },
  });

function expectProblem(answer: Answer, code: ProblemCode): void {
  expect(problemSchema.parse(answer.json()).code).toBe(code);
  expect(answer.status).toBe(PROBLEMS[code].status);
}

/** The client's bytes of a document: those after the metadata. */
const own = (text: string) =>
  text.slice(text.indexOf('"_updated"') + '"_updated":"2026-01-01T00:00:00.000Z"'.length);

describe('PATCH', () => {
  const TEXT = '{ "n": 12345678901234567890, "m":1.10,\n "o":{"x":[1e400, "\\u00e9"]} }';

  it('applies a merge patch, and keeps every byte that the patch does not name', async () => {
    await put('merge', TEXT);
    const before = JSON.parse(await get('merge'));
    const answer = await patch('merge', MERGE, '{"m":2.50}');
    expect(answer.status).toBe(200);
    const metadata = answer.json();
    expect(Object.keys(metadata)).toEqual(['_id', '_collection', '_rev', '_created', '_updated']);
    expect(answer.headers['etag']).toBe(`"${metadata['_rev']}"`);
    expect(metadata['_rev']).not.toBe(before._rev);
    expect(metadata['_created']).toBe(before._created);
    expect(own(await get('merge'))).toBe(`,${TEXT.replace('1.10', '2.50').slice(1)}`);
  });

  it('applies a JSON Patch as a whole', async () => {
    await put('json', TEXT);
    const operations = '[{"op":"test","path":"/m","value":1.1},{"op":"remove","path":"/o/x/0"}]';
    expect((await patch('json', `${JSON_PATCH}; charset=utf-8`, operations)).status).toBe(200);
    expect(own(await get('json'))).toBe(`,${TEXT.replace('1e400,', '').slice(1)}`);
  });

  it('can add members to an empty document, and can remove all members', async () => {
    await put('empty', '{}');
    await patch('empty', MERGE, '{"a":1}');
    expect(own(await get('empty'))).toBe(',"a":1}');
    await patch('empty', MERGE, '{"a":null}');
    expect(own(await get('empty'))).toBe('}');
  });

  it('applies only to the revision that If-Match names', async () => {
    const rev = String((await put('match', '{"v":1}')).json()['_rev']);
    const stale = await patch('match', MERGE, '{"v":2}', { 'if-match': `"${'0'.repeat(24)}"` });
    expectProblem(stale, 'precondition_failed');
    expectProblem(await patch('match', MERGE, '{"v":2}', { 'if-none-match': '*' }), 'precondition_failed');
    expect((await patch('match', MERGE, '{"v":2}', { 'if-match': `"${rev}"` })).status).toBe(200);
    expectProblem(await patch('match', MERGE, '{"v":3}', { 'if-match': `"${rev}"` }), 'precondition_failed');
    expect(own(await get('match'))).toBe(',"v":2}');
  });

  it('loses none of many concurrent patches', async () => {
    await put('many', '{"n":0}');
    const answers = await Promise.all(
      Array.from({ length: 40 }, (_, n) => patch('many', MERGE, `{"m${n}":${n}}`)),
    );
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    const members = JSON.parse(await get('many'));
    for (let n = 0; n < 40; n++) expect(members[`m${n}`]).toBe(n);
  });

  it('a PATCH that fails changes nothing', async () => {
    await put('fails', '{"a":1}');
    const before = await get('fails');
    const failing = (value: string) =>
      `[{"op":"add","path":"/b","value":1},{"op":"test","path":"/a","value":${value}}]`;
    const answer = await patch('fails', JSON_PATCH, failing('2'));
    expectProblem(answer, 'patch_test_failed');
    expect(answer.json()['errors']).toEqual([{ path: 'body.1', message: 'the value is another one' }]);
    expectProblem(await patch('fails', JSON_PATCH, '[{"op":"remove","path":"/c"}]'), 'patch_inapplicable');
    const large = `{"b":"${'x'.repeat(4_090)}"}`;
    expectProblem(await patch('fails', MERGE, large), 'payload_too_large');
    expect(await get('fails')).toBe(before);
    expect((await patch('fails', JSON_PATCH, failing('1.0'))).status).toBe(200);
  });

  it.each([
    [MERGE, '{"_rev":"x"}', 'invalid_patch'],
    [MERGE, '[]', 'invalid_patch'],
    [MERGE, '{"a":1,"a":2}', 'invalid_json'],
    [MERGE, `${'{"a":'.repeat(101)}1${'}'.repeat(101)}`, 'invalid_json'],
    [MERGE, '', 'invalid_json'],
    [MERGE, '{"__proto__":1}', 'invalid_json'],
    [MERGE, Buffer.from('7b2261223a22ff227d', 'hex'), 'invalid_json'],
    [JSON_PATCH, '{}', 'invalid_patch'],
    [JSON_PATCH, '[{"op":"add","path":"/_id","value":1}]', 'invalid_patch'],
    [JSON_PATCH, '[{"op":"add","path":"a","value":1}]', 'invalid_patch'],
    [JSON_PATCH, '[{"op":"add","path":"/__proto__","value":1}]', 'invalid_patch'],
    [JSON_PATCH, '[1]', 'invalid_patch'],
    ['application/json', '{"a":2}', 'unsupported_media_type'],
    ['text/plain', '{"a":2}', 'unsupported_media_type'],
    ['application/merge-patch', '{"a":2}', 'unsupported_media_type'],
    [`${MERGE}; charset=utf-16`, '{"a":2}', 'unsupported_media_type'],
  ] as const)('of %s with %s is refused, and changes nothing', async (type, body, code) => {
    await put('bad', '{"a":1}');
    const before = await get('bad');
    const answer = await patch('bad', type, body);
    expectProblem(answer, code);
    expect(answer.headers['accept-patch']).toBe(`${MERGE}, ${JSON_PATCH}, ${UPDATE}`);
    expect(await get('bad')).toBe(before);
  });

  it('a PATCH without a body or a type is 415', async () => {
    const answer = await call(installation.url, path('bad'), { method: 'PATCH', token });
    expectProblem(answer, 'unsupported_media_type');
  });

  it('content types of patches are not accepted for documents', async () => {
    for (const type of [MERGE, JSON_PATCH, UPDATE]) {
      const headers = { 'content-type': type };
      const answer = await call(installation.url, path('put'), { method: 'PUT', token, body: '{}', headers });
      expectProblem(answer, 'unsupported_media_type');
    }
  });

  it('a PATCH of a missing document is 404, and creates nothing', async () => {
    await put('exists', '{}');
    expectProblem(await patch('absent', MERGE, '{"a":1}'), 'document_not_found');
    const elsewhere = await call(installation.url, path('a', 'never'), {
      method: 'PATCH',
      token,
      body: '{}',
      headers: { 'content-type': MERGE },
    });
    expectProblem(elsewhere, 'project_not_found');
  });

  it('requires the read and the write scope, since its outcome reveals the content', async () => {
    await put('scopes', '{"a":1}');
    for (const scope of [['docs:write'], ['docs:read']] as const) {
      const who = await installation.client(['*'], [...scope]);
      expectProblem(await patch('scopes', MERGE, '{"a":2}', {}, who), 'forbidden');
    }
    expect(own(await get('scopes'))).toBe(',"a":1}');
  });

  it('repeated with its idempotency key gets the first answer, even when it would not apply again', async () => {
    await put('again', '{"a":1}');
    const headers = { 'idempotency-key': 'patch-1' };
    const once = '[{"op":"test","path":"/a","value":1},{"op":"replace","path":"/a","value":2}]';
    const first = await patch('again', JSON_PATCH, once, headers);
    const again = await patch('again', JSON_PATCH, once, headers);
    expect([again.status, again.text]).toEqual([200, first.text]);
    expectProblem(await patch('again', JSON_PATCH, once), 'patch_test_failed');
    expectProblem(
      await patch('again', JSON_PATCH, once, { 'idempotency-key': 'patch-2' }),
      'patch_test_failed',
    );
    const other = '[{"op":"test","path":"/a","value":2}]';
    expectProblem(await patch('again', JSON_PATCH, other, headers), 'idempotency_mismatch');
    await call(installation.url, path('again'), { method: 'DELETE', token });
    expect((await patch('again', JSON_PATCH, once, headers)).text).toBe(first.text);
  });
});
