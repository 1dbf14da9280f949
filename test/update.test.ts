import { PROBLEMS, type ProblemCode, problemSchema } from '@bundoc/shared/contract/problem';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Answer, call, Installation } from './support/installation.ts';

let installation: Installation;
let token: string;
beforeAll(async () => {
  installation = await Installation.start({ environment: { BUNDOC_MAX_DOCUMENT_BYTES: '262144' } });
  token = await installation.client(['*'], ['docs:read', 'docs:write', 'docs:admin']);
});
afterAll(() => installation[Symbol.asyncDispose]());

const UPDATE = 'application/vnd.bundoc.update+json';
const MERGE = 'application/merge-patch+json';
const PROJECT = '/v1/projects/updated';
const path = (id: string) => `${PROJECT}/collections/notes/documents/${id}`;
const put = (id: string, body: string) => call(installation.url, path(id), { method: 'PUT', token, body });
const update = (id: string, body: string, headers: Record<string, string> = {}, who = token) =>
  call(installation.url, path(id), {
    method: 'PATCH',
    token: who,
    body,
    headers: { 'content-type': UPDATE, ...headers },
  });
const batch = (body: string, headers: Record<string, string> = {}, who = token) =>
  call(installation.url, `${PROJECT}/batch`, { method: 'POST', token: who, body, headers });

/** The client's bytes of a document: those after the metadata. */
const own = async (id: string) => {
  const { text } = await call(installation.url, path(id), { token });
  return text.slice(text.indexOf('"_updated"') + '"_updated":"2026-01-01T00:00:00.000Z"'.length);
};

function expectProblem(answer: Answer, code: ProblemCode): void {
  expect(problemSchema.parse(answer.json()).code).toBe(code);
  expect(answer.status).toBe(PROBLEMS[code].status);
}

describe('an update', () => {
  it('changes what its operators name, and keeps every other byte', async () => {
    await put('bytes', '{ "n": 12345678901234567890, "m":1.10,\n "o":{"x":[1e400, "\\u00e9"]} }');
    const answer = await update('bytes', '{"$inc":{"m":0.10},"$push":{"o.x":true}}', {
      'content-type': `${UPDATE}; charset=utf-8`,
    });
    expect(answer.status).toBe(200);
    expect(answer.headers['etag']).toBe(`"${answer.json()['_rev']}"`);
    expect(await own('bytes')).toBe(
      ', "n": 12345678901234567890, "m":1.20,\n "o":{"x":[1e400, "\\u00e9", true]} }',
    );
  });

  it('of 64 clients at once that increment one counter loses nothing', async () => {
    await put('counter', '{"n":0.00,"log":[]}');
    const answers = await Promise.all(
      Array.from({ length: 64 }, (_, n) => update('counter', `{"$inc":{"n":0.01},"$push":{"log":${n}}}`)),
    );
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    const text = await own('counter');
    expect(text).toContain('"n":0.64,');
    const { log } = JSON.parse(`{${text.slice(1)}`) as { log: number[] };
    expect(log.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 64 }, (_, n) => n));
  });

  it('that does not fit changes nothing, and names the operator and the path', async () => {
    await put('misfit', '{"a":1,"t":"x"}');
    const answer = await update('misfit', '{"$inc":{"a":1,"t":1}}');
    expectProblem(answer, 'patch_inapplicable');
    expect(answer.json()['errors']).toEqual([
      { path: 'body.$inc.t', message: 'the present value is a string, not a number' },
    ]);
    expect(await own('misfit')).toBe(',"a":1,"t":"x"}');
    expectProblem(await update('none', '{"$inc":{"a":1}}'), 'document_not_found');
  });

  it.each([
    ['{"$incr":{"a":1}}', 'invalid_patch'],
    ['{"$set":{"_id":"x"}}', 'invalid_patch'],
    ['{"$set":{"a.__proto__.b":1}}', 'invalid_patch'],
    ['{"$set":{"__proto__":1}}', 'invalid_json'],
    ['{"$set":{"a":1,"a":2}}', 'invalid_json'],
    ['', 'invalid_json'],
  ] as const)('of %s is refused, and changes nothing', async (body, code) => {
    await put('bad', '{"a":1}');
    expectProblem(await update('bad', body), code);
    expect(await own('bad')).toBe(',"a":1}');
  });

  it('applies only to the revision that If-Match names', async () => {
    const rev = String((await put('match', '{"v":1}')).json()['_rev']);
    const headers = { 'if-match': `"${rev}"` };
    expect((await update('match', '{"$inc":{"v":1}}', headers)).status).toBe(200);
    expectProblem(await update('match', '{"$inc":{"v":1}}', headers), 'precondition_failed');
    expect(await own('match')).toBe(',"v":2}');
  });

  it('requires the read and the write scope, in a batch as well', async () => {
    await put('scopes', '{"a":1}');
    for (const scope of ['docs:write', 'docs:read'] as const) {
      const who = await installation.client(['*'], [scope]);
      expectProblem(await update('scopes', '{"$inc":{"a":1}}', {}, who), 'forbidden');
      const operation = '{"op":"patch","collection":"notes","id":"scopes","update":{"$inc":{"a":1}}}';
      expectProblem(await batch(`{"operations":[${operation}]}`, {}, who), 'forbidden');
    }
    expect(await own('scopes')).toBe(',"a":1}');
  });

  it('repeated with its idempotency key happens once, and gets the first answer', async () => {
    await put('again', '{"n":1}');
    const headers = { 'idempotency-key': 'update-1' };
    const first = await update('again', '{"$inc":{"n":1}}', headers);
    const answers = await Promise.all([1, 2, 3].map(() => update('again', '{"$inc":{"n":1}}', headers)));
    for (const answer of answers) expect([answer.status, answer.text]).toEqual([200, first.text]);
    expect(await own('again')).toBe(',"n":2}');
    expectProblem(await update('again', '{"$inc":{"n":2}}', headers), 'idempotency_mismatch');
    const asMerge = { ...headers, 'content-type': MERGE };
    expectProblem(await update('again', '{"$inc":{"n":1}}', asMerge), 'idempotency_mismatch');
  });

  it('in a batch takes effect with its other operations, or not at all', async () => {
    await put('one', '{ "n":1 }');
    await put('two', '{"n":"x"}');
    const operation = (id: string) =>
      `{"op":"patch","collection":"notes","id":"${id}","update":{"$inc":{"n":1.50}}}`;
    const refused = await batch(`{"operations":[${operation('one')},${operation('two')}]}`);
    expectProblem(refused, 'patch_inapplicable');
    expect(refused.json()['errors']).toEqual([
      { path: 'body.operations.1.update.$inc.n', message: 'the present value is a string, not a number' },
    ]);
    expect(await own('one')).toBe(', "n":1 }');
    const creation = '{"op":"create","collection":"notes","id":"three","document":{}}';
    expect((await batch(`{"operations":[${operation('one')},${creation}]}`)).status).toBe(200);
    expect(await own('one')).toBe(', "n":2.50 }');
    const invalid = await batch(`{"operations":[${operation('one').replace('$inc', '$incr')}]}`);
    expectProblem(invalid, 'invalid_patch');
    expect(invalid.json()['errors']).toMatchObject([{ path: 'body.operations.0.update' }]);
    const both = await batch(
      `{"operations":[${operation('one').replace('"update"', '"merge":{},"update"')}]}`,
    );
    expectProblem(both, 'invalid_request');
  });

  it('of a large document, or with a large body, happens in the thread for them', async () => {
    const items = Array.from({ length: 20_000 }, (_, n) => n);
    await put('large', JSON.stringify({ n: 1, items }));
    expect((await update('large', '{"$inc":{"n":1},"$pull":{"items":{"$gte":3}}}')).status).toBe(200);
    expect(await own('large')).toBe(',"n":2,"items":[0,1,2]}');
    const added = JSON.stringify({ $addToSet: { items: { $each: items } }, $inc: { n: 0.5 } });
    expect(added.length).toBeGreaterThan(65_536);
    expect((await update('large', added)).status).toBe(200);
    expect(await own('large')).toBe(`,"n":2.5,"items":${JSON.stringify(items)}}`);
    const misfit = JSON.stringify({ $push: { n: { $each: items } } });
    const refused = await update('large', misfit);
    expectProblem(refused, 'patch_inapplicable');
    expect(refused.json()['errors']).toMatchObject([{ path: 'body.$push.n' }]);
    expectProblem(await update('large', JSON.stringify({ $foo: items })), 'invalid_patch');
  });

  it('with conditions on exact numbers is applied in another thread as in this one', async () => {
    const items = Array.from({ length: 4_000 }, (_, n) => n + 1_000);
    const exact = [...items, '12345678901234567890', '12345678901234567891'];
    await put('exact', `{"items":[${exact.join(',')}]}`);
    const condition = '{"$gt":12345678901234567890,"$not":{"$lt":1},"$ne":5}';
    expect((await update('exact', `{"$pull":{"items":${condition}}}`)).status).toBe(200);
    expect(await own('exact')).toBe(`,"items":[${exact.slice(0, -1).join(',')}]}`);
  });

  it('is checked by the schema of the collection, and by its unique indexes', async () => {
    const collection = `${PROJECT}/collections/checked`;
    const documents = `${collection}/documents`;
    await call(installation.url, collection, {
      method: 'PUT',
      token,
      body: JSON.stringify({
        schema: { properties: { stars: { type: 'number', maximum: 5 } } },
        indexes: [{ fields: ['name'], unique: true }],
      }),
    });
    for (const id of ['a', 'b'])
      await call(installation.url, `${documents}/${id}`, {
        method: 'PUT',
        token,
        body: `{"stars":4,"name":"${id}"}`,
      });
    const change = (body: string) =>
      call(installation.url, `${documents}/a`, {
        method: 'PATCH',
        token,
        body,
        headers: { 'content-type': UPDATE },
      });
    expect((await change('{"$inc":{"stars":1}}')).status).toBe(200);
    expectProblem(await change('{"$inc":{"stars":1}}'), 'schema_violation');
    expectProblem(await change('{"$set":{"name":"b"}}'), 'unique_violation');
  });

  it('writes the time of the service by $currentDate', async () => {
    const before = Date.now();
    await put('dated', '{}');
    await update('dated', '{"$currentDate":{"at":true}}');
    const { at } = JSON.parse(`{${(await own('dated')).slice(1)}`) as { at: string };
    expect(at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    expect(Date.parse(at)).toBeGreaterThanOrEqual(before);
    expect(Date.parse(at)).toBeLessThanOrEqual(Date.now());
  });
});
