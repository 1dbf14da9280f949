import { createDecipheriv } from 'node:crypto';
import { PROBLEM_CONTENT_TYPE } from '@bundoc/shared/contract/problem-reply';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

let installation: Installation;
let token: string;
beforeAll(async () => {
  installation = await Installation.start();
  token = await installation.client();
});
afterAll(() => installation[Symbol.asyncDispose]());

const COLLECTION = '/v1/projects/project-a/collections/notes/documents';
const send = (method: string, path: string, body?: string, headers?: Record<string, string>) =>
  call(installation.url, path, {
    method,
    token,
    ...(body === undefined ? {} : { body }),
    ...(headers === undefined ? {} : { headers }),
  });

describe('the whole workflow', () => {
  it('stores a document under a new key of its project, and returns it as it was sent', async () => {
    const created = await send(
      'POST',
      COLLECTION,
      '{ "n": 12345678901234567890, "price":1.10, "10":1, "b":"é" }',
    );
    expect(created.status).toBe(201);
    const metadata = created.json();
    expect(Object.keys(metadata)).toEqual(['_id', '_collection', '_rev', '_created', '_updated']);
    expect(created.headers['etag']).toBe(`"${String(metadata['_rev'])}"`);
    expect(created.headers['location']).toBe(`${COLLECTION}/${String(metadata['_id'])}`);

    const read = await call(installation.url, String(created.headers['location']), { token });
    expect(read.status).toBe(200);
    expect(read.headers['content-type']).toBe('application/json; charset=utf-8');
    expect(read.headers['cache-control']).toBe('private, no-cache');
    expect(read.headers['etag']).toBe(created.headers['etag']);
    expect(read.text).toBe(
      `${JSON.stringify(metadata).slice(0, -1)}, "n": 12345678901234567890, "price":1.10, "10":1, "b":"é" }`,
    );
  });

  it('stores each document as one file or row of sealed bytes that only the exported key opens', async () => {
    await send('PUT', `${COLLECTION}/by-hand`, '{"secret":"planted words"}');
    const service = installation.read('kms-token').toString().trim();
    const exported = (
      await call(installation.kms.internalUrl, '/v1/export/project-a-dek', { token: service })
    ).json();
    const opened = (await installation.stored.sealedDocuments('project-a', 2)).map(({ name, sealed }) => {
      const key = Buffer.from(String(exported['key_material_b64']), 'base64');
      const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, 12));
      decipher.setAAD(Buffer.from(`bundoc/doc/v1\0project-a\0${name}`));
      decipher.setAuthTag(sealed.subarray(-16));
      return Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]).toString();
    });
    expect(opened.some((text) => text.includes('planted words'))).toBe(true);
    expect(exported).toMatchObject({ algorithm: 'AES-256-GCM', name: 'project-a-dek', version: 1 });
  });

  it('writes a CRITICAL audit record for each exported key', async () => {
    const auditor = await installation.issue({ sub: 'auditor', typ: 'service', scope: ['kms:audit'] });
    const page = await call(installation.kms.apiUrl, '/v1/audit?severity=CRITICAL&key=project-a-dek', {
      token: auditor,
    });
    const records = page.json()['records'] as Record<string, unknown>[];
    expect(records.length).toBeGreaterThan(0);
    expect(records.at(-1)).toMatchObject({
      severity: 'CRITICAL',
      action: 'key.export',
      outcome: 'allowed',
      actor: 'bundoc',
      key: 'project-a-dek',
      version: 1,
      source: '127.0.0.1',
    });
  });

  it('generates ids that sort by time', async () => {
    const ids: string[] = [];
    for (let n = 0; n < 20; n++) ids.push(String((await send('POST', COLLECTION, '{}')).json()['_id']));
    expect([...ids].sort()).toEqual(ids);
  });

  it('takes the id of a POST from the body, and refuses a second one with 409', async () => {
    expect((await send('POST', COLLECTION, '{"_id":"mine","v":1}')).status).toBe(201);
    const again = await send('POST', COLLECTION, '{"_id":"mine","v":2}');
    expect([again.status, again.json()['code']]).toEqual([409, 'document_exists']);
    expect((await send('GET', `${COLLECTION}/mine`)).json()['v']).toBe(1);
  });

  it('creates by PUT with 201, and replaces with 200, keeping _created', async () => {
    const first = await send('PUT', `${COLLECTION}/put`, '{"v":1}');
    const second = await send('PUT', `${COLLECTION}/put`, '{"v":2}');
    expect([first.status, second.status]).toEqual([201, 200]);
    expect(second.json()['_created']).toBe(first.json()['_created']);
    expect((await send('GET', `${COLLECTION}/put`)).json()).toMatchObject({ v: 2, ...second.json() });
  });

  it('keeps the user’s bytes unchanged when a PUT sends what GET returned', async () => {
    await send('PUT', `${COLLECTION}/round`, '{ "a" : [1, 2.50] }');
    const read = await send('GET', `${COLLECTION}/round`);
    expect((await send('PUT', `${COLLECTION}/round`, read.text)).status).toBe(200);
    const again = await send('GET', `${COLLECTION}/round`);
    expect(again.text.endsWith(', "a" : [1, 2.50] }')).toBe(true);
    const stale = await send('PUT', `${COLLECTION}/round`, read.text);
    expect([stale.status, stale.json()['code']]).toEqual([412, 'precondition_failed']);
  });

  it('honours If-Match and If-None-Match on writes', async () => {
    const path = `${COLLECTION}/cas`;
    expect((await send('PUT', path, '{}', { 'if-match': '*' })).status).toBe(412);
    const created = await send('PUT', path, '{"v":1}', { 'if-none-match': '*' });
    expect(created.status).toBe(201);
    expect((await send('PUT', path, '{}', { 'if-none-match': '*' })).status).toBe(412);
    const etag = String(created.headers['etag']);
    expect((await send('PUT', path, '{"v":2}', { 'if-match': `W/${etag}` })).status).toBe(412);
    expect((await send('PUT', path, '{"v":2}', { 'if-match': `"x", ${etag}` })).status).toBe(200);
    expect((await send('PUT', path, '{"v":3}', { 'if-match': etag })).status).toBe(412);
    expect((await send('DELETE', path, undefined, { 'if-match': etag })).status).toBe(412);
    expect((await send('GET', path)).json()['v']).toBe(2);
  });

  it('names the current entity tag in the refusal of a conditional write, so that the next one need not read', async () => {
    const path = `${COLLECTION}/named`;
    const refusedWith = async (method: string, body: string | undefined, headers: Record<string, string>) => {
      const { status, json } = await send(method, path, body, headers);
      expect(status).toBe(412);
      return json()['errors'];
    };
    const missing = { path: 'headers.If-Match', message: 'the document does not exist' };
    expect(await refusedWith('PUT', '{}', { 'if-match': '"x"' })).toEqual([missing]);
    const created = await send('PUT', path, '{"v":1}');
    const etag = String(created.headers['etag']);
    const other = { path: 'headers.If-Match', message: 'the document is at another revision', etag };
    expect(await refusedWith('PUT', '{"v":2}', { 'if-match': '"x"' })).toEqual([other]);
    expect(await refusedWith('DELETE', undefined, { 'if-match': '"x"' })).toEqual([other]);
    const merge = { 'if-match': '"x"', 'content-type': 'application/merge-patch+json' };
    expect(await refusedWith('PATCH', '{"v":2}', merge)).toEqual([other]);
    expect(await refusedWith('PUT', '{}', { 'if-none-match': '*' })).toEqual([
      { path: 'headers.If-None-Match', message: 'the document already exists', etag },
    ]);
    const stale = JSON.stringify({ _rev: '0'.repeat(24) });
    for (const headers of [{}, { 'if-match': '*' }])
      expect(await refusedWith('PUT', stale, headers)).toEqual([{ ...other, path: 'body._rev' }]);
    expect(await refusedWith('GET', undefined, { 'if-match': '"x"' })).toEqual([
      { path: 'headers.If-Match', message: 'names another revision', etag },
    ]);
    expect((await send('PUT', path, '{"v":2}', { 'if-match': etag })).status).toBe(200);
  });

  it('answers a conditional read with 304 when nothing has changed', async () => {
    const { headers } = await send('PUT', `${COLLECTION}/conditional`, '{"v":1}');
    const etag = String(headers['etag']);
    const read = await send('GET', `${COLLECTION}/conditional`, undefined, { 'if-none-match': etag });
    expect([read.status, read.text, read.headers['etag']]).toEqual([304, '', etag]);
    expect((await send('GET', `${COLLECTION}/conditional`, undefined, { 'if-match': '"x"' })).status).toBe(
      412,
    );
  });

  it('answers HEAD like GET, without the body', async () => {
    await send('PUT', `${COLLECTION}/head`, '{"v":1}');
    const read = await send('GET', `${COLLECTION}/head`);
    const head = await send('HEAD', `${COLLECTION}/head`);
    expect(head.status).toBe(200);
    expect(head.text).toBe('');
    for (const name of ['etag', 'content-type', 'content-length'])
      expect(head.headers[name]).toBe(read.headers[name]);
    expect((await send('HEAD', `${COLLECTION}/nothing`)).status).toBe(404);
  });

  it('deletes: 204, then 404', async () => {
    await send('PUT', `${COLLECTION}/gone`, '{"v":1}');
    expect((await send('DELETE', `${COLLECTION}/gone`)).status).toBe(204);
    expect((await send('GET', `${COLLECTION}/gone`)).json()['code']).toBe('document_not_found');
    expect((await send('DELETE', `${COLLECTION}/gone`)).status).toBe(404);
  });

  it('accepts ids of any characters that a path can carry, percent-encoded', async () => {
    for (const id of [
      'a b',
      'ü/🙂'.replace('/', '-'),
      '%',
      '%2F',
      'a:b;c=d,e',
      '"quoted"',
      'x'.repeat(512),
      'é'.repeat(256),
      '...',
    ]) {
      const path = `${COLLECTION}/${encodeURIComponent(id)}`;
      const put = await send('PUT', path, JSON.stringify({ _id: id, v: 1 }));
      expect(put.status, id).toBe(201);
      expect(put.headers['location']).toBe(path);
      expect((await send('GET', path)).json()['_id'], id).toBe(id);
    }
  });

  it('knows a project by its id in any case', async () => {
    await send('PUT', '/v1/projects/Project-A/collections/notes/documents/case', '{"v":1}');
    expect((await send('GET', `${COLLECTION}/case`)).status).toBe(200);
    expect(await installation.stored.ids()).not.toContain('Project-A');
  });

  it('creates neither project nor key when a project is only read from or cannot be written', async () => {
    const never = '/v1/projects/never/collections/notes/documents';
    for (const [method, path, status, code, headers] of [
      ['GET', `${never}/a`, 404, 'project_not_found'],
      ['DELETE', `${never}/a`, 404, 'project_not_found'],
      ['PUT', `${never}/a`, 412, 'precondition_failed', { 'if-match': '"x"' }],
    ] as const) {
      const answer = await send(method, path, method === 'PUT' ? '{}' : undefined, headers);
      expect([answer.status, answer.json()['code']]).toEqual([status, code]);
      expect(answer.headers['content-type']).toBe(PROBLEM_CONTENT_TYPE);
    }
    expect((await send('POST', never, '{"_bad":1}')).status).toBe(400);
    expect(await installation.stored.ids()).not.toContain('never');
    const reader = await installation.issue({
      sub: 'r',
      typ: 'service',
      scope: ['kms:read_key'],
      keys: ['*'],
    });
    expect((await call(installation.kms.apiUrl, '/v1/keys/never-dek', { token: reader })).status).toBe(404);
  });

  it('keeps everything across a restart of both services', async () => {
    await send('PUT', `${COLLECTION}/restart`, '{"v":42}');
    await installation.stopBundoc();
    await installation.stopKms();
    await installation.startKms();
    await installation.startBundoc();
    expect((await send('GET', `${COLLECTION}/restart`)).json()['v']).toBe(42);
  });
});
