import { problemSchema } from '@bundoc/shared/contract/problem';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Answer } from './support/http.ts';
import { startKms, type TestKms } from './support/kms.ts';

const KEY = '{"name":"x-dek","type":"aes-256"}';

describe('bad input', () => {
  let kms: TestKms;
  let token: string;
  beforeAll(async () => {
    kms = await startKms();
    token = await kms.fullToken();
  });
  afterAll(() => kms[Symbol.asyncDispose]());

  /** Expects a refusal in the common form that creates no key and no token. */
  async function expectRefusal(ask: () => Promise<Answer>, status: number, code: string): Promise<void> {
    const before = await kms.store.counts();
    const answer = await ask();
    expect([answer.status, answer.headers['content-type']]).toEqual([
      status,
      'application/problem+json; charset=utf-8',
    ]);
    expect(problemSchema.strict().parse(answer.json())).toMatchObject({ status, code });
    expect(await kms.store.counts()).toEqual(before);
  }

  it.each<[what: string, body: string | Buffer, status: number, code: string]>([
    ['nothing', '', 400, 'invalid_json'],
    ['half of a text', '{"name":', 400, 'invalid_json'],
    ['an array', `[${KEY}]`, 400, 'invalid_json'],
    ['a string', '"x-dek"', 400, 'invalid_json'],
    ['null', 'null', 400, 'invalid_json'],
    ['two texts', `${KEY}${KEY}`, 400, 'invalid_json'],
    ['a byte order mark', `\ufeff${KEY}`, 400, 'invalid_json'],
    ['invalid UTF-8', Buffer.from('{"name":"\xff","type":"aes-256"}', 'latin1'), 400, 'invalid_json'],
    ['__proto__', `{"__proto__":{"a":1},"name":"x-dek","type":"aes-256"}`, 400, 'invalid_json'],
    ['__proto__ in disguise', `{"\\u005f_proto__":1,"name":"x-dek","type":"aes-256"}`, 400, 'invalid_json'],
    ['a name twice', `{"name":"x-dek","name":"y-dek","type":"aes-256"}`, 400, 'invalid_json'],
    [
      'a duplicate name in another spelling',
      `{"name":"x-dek","n\\u0061me":"y-dek","type":"aes-256"}`,
      400,
      'invalid_json',
    ],
    ['deep nesting', `{"name":${'['.repeat(200)}${']'.repeat(200)}}`, 400, 'invalid_json'],
    [
      'constructor',
      `{"constructor":{"prototype":1},"name":"x-dek","type":"aes-256"}`,
      400,
      'invalid_request',
    ],
    ['another member', `{"name":"x-dek","type":"aes-256","version":2}`, 400, 'invalid_request'],
    ['no name', `{"type":"aes-256"}`, 400, 'invalid_request'],
    ['no type', `{"name":"x-dek"}`, 400, 'invalid_request'],
    ['the type aes-128', `{"name":"x-dek","type":"aes-128"}`, 400, 'invalid_request'],
    ['the type AES-256', `{"name":"x-dek","type":"AES-256"}`, 400, 'invalid_request'],
    ['the type rsa', `{"name":"x-dek","type":"rsa-2048"}`, 400, 'invalid_request'],
    ['a list of types', `{"name":"x-dek","type":["aes-256"]}`, 400, 'invalid_request'],
    ['a number for a name', `{"name":7,"type":"aes-256"}`, 400, 'invalid_request'],
    [
      'more than the limit',
      `{"name":"x-dek","type":"aes-256"${' '.repeat(70_000)}}`,
      413,
      'payload_too_large',
    ],
  ])('a body with %s is refused', async (_what, body, status, code) => {
    await expectRefusal(() => kms.api('/v1/keys', { method: 'POST', token, body }), status, code);
  });

  it('a refusal names each fault by its place, and quotes no value', async () => {
    const answer = await kms.api('/v1/keys', {
      token,
      body: { name: 'VALUE', type: 'VALUE', extra: 'VALUE' },
    });
    const { errors } = answer.json();
    expect(errors.map(({ path }: { path: string }) => path).sort()).toEqual([
      'body',
      'body.name',
      'body.type',
    ]);
    expect(answer.text).not.toContain('VALUE');
    const missing = await kms.api('/v1/keys', { token, body: { name: 'x-dek' } });
    expect(missing.json().errors).toEqual([
      { path: 'body.type', message: 'is required: only "aes-256" keys exist' },
    ]);
  });

  it.each([
    ['text/plain', {}],
    ['application/x-www-form-urlencoded', {}],
    ['application/json+x', {}],
    ['', {}],
    ['application/json', { 'content-encoding': 'gzip' }],
  ])('a body of the type "%s" %j is refused', async (contentType, more) => {
    const headers = { 'content-type': contentType, ...more };
    await expectRefusal(
      () => kms.api('/v1/keys', { token, body: KEY, headers }),
      415,
      'unsupported_media_type',
    );
  });

  const NAMES = [
    '%00',
    'a%00b',
    '%2e%2e',
    '..',
    '.',
    'a%2Fb',
    '%2Fetc%2Fpasswd',
    'A-dek',
    'caf%C3%A9',
    '%F0%9F%94%91',
    '%20',
    'a%20b',
    'a%0Ab',
    '-a',
    '_a',
    'a*',
    'a'.repeat(129),
  ];
  it.each(NAMES)('the key name %s in a path is refused', async (name) => {
    await expectRefusal(() => kms.api(`/v1/keys/${name}`, { token }), 400, 'invalid_request');
    await expectRefusal(() => kms.internal(`/v1/export/${name}`, { token }), 400, 'invalid_request');
    for (const operation of ['encrypt', 'data-key', 'decrypt', 'rewrap'])
      await expectRefusal(
        () => kms.api(`/v1/${operation}/${name}`, { token, body: { plaintext_b64: '' } }),
        400,
        'invalid_request',
      );
    await expectRefusal(
      () => kms.api(`/v1/keys/${name}/rotate`, { method: 'POST', token }),
      400,
      'invalid_request',
    );
  });

  it.each(NAMES)('the key name %s in a body is refused', async (name) => {
    const body = { name: decodeURIComponent(name), type: 'aes-256' };
    await expectRefusal(() => kms.api('/v1/keys', { token, body }), 400, 'invalid_request');
  });

  it('key names of 1 and of 128 characters are accepted', async () => {
    for (const name of ['a', `0${'._-'.repeat(42)}z`]) {
      expect((await kms.api('/v1/keys', { token, body: { name, type: 'aes-256' } })).status).toBe(201);
      expect((await kms.internal(`/v1/export/${name}`, { token })).status).toBe(200);
    }
  });

  it.each([
    ['/v1/keys/a/b', 404, 'not_found'],
    ['/v1/keys/', 404, 'not_found'],
    ['/v1/export/', 404, 'not_found'],
    ['/v1/keys/%zz', 400, 'invalid_request'],
    ['/v1/keys/%ff', 400, 'invalid_request'],
    [`/v1/keys/${'a'.repeat(2_000)}`, 414, 'uri_too_long'],
    ['/nothing', 404, 'not_found'],
  ])('the path %s is refused', async (path, status, code) => {
    await expectRefusal(() => kms.internal(path, { token }), status, code);
  });

  it.each([
    '/v1/keys?limit=0',
    '/v1/keys?limit=501',
    '/v1/keys?limit=1e2',
    '/v1/keys?limit=-1',
    '/v1/keys?limit=1&limit=2',
    '/v1/keys?cursor=NOPE',
    '/v1/keys?page=2',
    '/v1/keys?__proto__=1',
    '/v1/keys?constructor=1',
    '/v1/keys/x-dek?version=1',
    '/v1/keys/x-dek/leases?cursor=x',
    '/v1/keys/x-dek/leases?limit=0',
    '/v1/keys/x-dek/leases?version=1',
    '/v1/keys/UPPER/leases',
    '/v1/events?since=1',
    '/v1/tokens?cursor=1',
    '/v1/tokens?sub=x',
    '/v1/audit?severity=WARN',
    '/v1/audit?key=UPPER',
    '/v1/audit?from=yesterday',
    '/v1/audit?cursor=x',
    '/v1/audit?offset=1',
    '/v1/audit/head?x=1',
    '/v1/kek?x=1',
    '/v1/kek/0123456789ABCDEF/unfetched',
    '/v1/kek/0123456789abcde/unfetched',
    '/v1/kek/0123456789abcdef/unfetched?limit=0',
    '/v1/kek/0123456789abcdef/unfetched?cursor=NOPE',
  ])('the query of %s is refused', async (path) => {
    await expectRefusal(() => kms.internal(path, { token }), 400, 'invalid_request');
  });

  it.each<[string, object]>([
    ['no scope', { sub: 'x', typ: 'client', scope: [] }],
    ['an unknown scope', { sub: 'x', typ: 'client', scope: ['kms:everything'] }],
    ['scopes of both services', { sub: 'x', typ: 'service', scope: ['kms:read_key', 'docs:read'] }],
    ['export for a client', { sub: 'x', typ: 'client', scope: ['kms:export_key'] }],
    [
      'a long life for a client',
      { sub: 'x', typ: 'client', scope: ['docs:read'], projects: ['project-a'], ttl_s: 86_401 },
    ],
    ['a life of zero', { sub: 'x', typ: 'client', scope: ['docs:read'], projects: ['project-a'], ttl_s: 0 }],
    ['half a second', { sub: 'x', typ: 'client', scope: ['docs:read'], projects: ['project-a'], ttl_s: 0.5 }],
    ['a bad subject', { sub: 'x y', typ: 'client', scope: ['docs:read'], projects: ['project-a'] }],
    ['another type', { sub: 'x', typ: 'root', scope: ['docs:read'], projects: ['project-a'] }],
    ['a bad glob', { sub: 'x', typ: 'service', scope: ['kms:read_key'], keys: ['a?'] }],
    ['a bad project', { sub: 'x', typ: 'client', scope: ['docs:read'], projects: ['../a'] }],
    [
      'an audience',
      { sub: 'x', typ: 'client', scope: ['docs:read'], projects: ['project-a'], aud: 'bunkms' },
    ],
  ])('a token request with %s is refused', async (_what, body) => {
    await expectRefusal(() => kms.api('/v1/tokens', { token, body }), 400, 'invalid_request');
  });

  it.each([
    '0',
    '-1',
    '+1',
    '01',
    '1001',
    '10000',
    '1.0',
    '1e2',
    '0x1',
    '%201',
    '1%00',
    '',
    'latest',
    '\u0661',
    '1&VERSION=1',
    '1&VERSION=2',
    '1&page=2',
  ])('the version %j in a query is refused', async (text) => {
    const { status } = await kms.api('/v1/keys', { token, body: { name: 'versions-dek', type: 'aes-256' } });
    expect([201, 409]).toContain(status);
    const query = (name: string) =>
      `${name}=${encodeURI(text).replace(/%25/g, '%').replace('VERSION', name)}`;
    await expectRefusal(
      () => kms.internal(`/v1/export/versions-dek?${query('version')}`, { token }),
      400,
      'invalid_request',
    );
    await expectRefusal(
      () => kms.api(`/v1/keys/versions-dek/rotate?${query('expected_version')}`, { method: 'POST', token }),
      400,
      'invalid_request',
    );
    expect((await kms.store.findKey('versions-dek', 'current'))?.record?.version).toBe(1);
  });

  it.each<[string, string]>([
    ['no base64', '{"plaintext_b64":"?"}'],
    ['base64url', '{"plaintext_b64":"-_-_"}'],
    ['base64 without padding', '{"plaintext_b64":"AA"}'],
    ['base64 with unused bits that are not zero', '{"plaintext_b64":"AB=="}'],
    ['base64 with a line break', '{"plaintext_b64":"AAAA\\nAAAA"}'],
    ['a number', '{"plaintext_b64":7}'],
    ['another member', '{"plaintext_b64":"","version":1}'],
    ['the members of another operation', '{"ciphertext_b64":""}'],
    ['an AAD that is not base64', '{"plaintext_b64":"","aad_b64":"?"}'],
    ['items that are not a list', '{"items":{"plaintext_b64":""}}'],
    ['no item', '{"items":[]}'],
    ['an item and a list', '{"items":[{"plaintext_b64":""}],"plaintext_b64":""}'],
  ])('an encryption with %s is refused', async (_what, body) => {
    const { status } = await kms.api('/v1/keys', { token, body: { name: 'crypto-dek', type: 'aes-256' } });
    expect([201, 409]).toContain(status);
    await expectRefusal(() => kms.api('/v1/encrypt/crypto-dek', { token, body }), 400, 'invalid_request');
  });

  it('an encryption with a query, or with a body that is not a JSON object, is refused', async () => {
    const body = '{"plaintext_b64":""}';
    await expectRefusal(
      () => kms.api('/v1/encrypt/x-dek?version=1', { token, body }),
      400,
      'invalid_request',
    );
    for (const text of ['', '[]', '{"plaintext_b64":"","plaintext_b64":""}', '{"__proto__":1}'])
      await expectRefusal(
        () => kms.api('/v1/encrypt/x-dek', { method: 'POST', token, body: text }),
        400,
        'invalid_json',
      );
  });

  it.each<[string, string, object | string | undefined, string]>([
    ['of KEKs with a KEK', '/v1/kek/rotate', { kek: 'ab'.repeat(32) }, 'invalid_request'],
    ['of KEKs with no id', '/v1/kek/rotate', { kek_id: 'current' }, 'invalid_request'],
    ['of KEKs with a list', '/v1/kek/rotate', '[]', 'invalid_json'],
    ['of KEKs with a query', '/v1/kek/rotate?kek_id=0123456789abcdef', {}, 'invalid_request'],
    ['of a KEK without an id', '/v1/kek/retire', {}, 'invalid_request'],
    ['of a KEK with nothing', '/v1/kek/retire', undefined, 'invalid_json'],
    ['of a KEK with more', '/v1/kek/retire', { kek_id: '0123456789abcdef', force: true }, 'invalid_request'],
    [
      'of a KEK with words',
      '/v1/kek/retire',
      { kek_id: '0123456789abcdef', accept_damaged: 'yes' },
      'invalid_request',
    ],
    ['of wrappings with a body', '/v1/kek/verify', {}, 'invalid_request'],
    ['of wrappings with a bad query', '/v1/kek/verify?limit=501', undefined, 'invalid_request'],
  ])('a rotation, retirement or verification %s is refused', async (_what, path, body, code) => {
    const call = { method: 'POST', token, ...(body === undefined ? {} : { body }) };
    await expectRefusal(() => kms.api(path, call), 400, code);
  });

  it('a rotation with a body, or with the query of an export, is refused', async () => {
    await kms.api('/v1/keys', { token, body: { name: 'body-dek', type: 'aes-256' } });
    const rotate = (query: string, body?: object) =>
      kms.api(`/v1/keys/body-dek/rotate${query}`, { method: 'POST', token, ...(body && { body }) });
    await expectRefusal(() => rotate('', {}), 400, 'invalid_request');
    await expectRefusal(() => rotate('', { expected_version: 1 }), 400, 'invalid_request');
    await expectRefusal(() => rotate('?version=1'), 400, 'invalid_request');
    await expectRefusal(
      () => kms.internal('/v1/export/body-dek?expected_version=1', { token }),
      400,
      'invalid_request',
    );
    expect((await kms.store.findKey('body-dek', 'current'))?.record?.version).toBe(1);
  });

  it('a renewal with a body, and a revocation of an invalid token id, are refused', async () => {
    await expectRefusal(
      () => kms.api('/v1/tokens/renew', { token, body: { ttl_s: 1 } }),
      400,
      'invalid_request',
    );
    await expectRefusal(() => kms.api('/v1/tokens/abc', { method: 'DELETE', token }), 400, 'invalid_request');
  });

  it('an unauthorized caller is refused before the body is read', async () => {
    for (const body of ['{', `{"name":"${'a'.repeat(60_000)}`]) {
      await expectRefusal(() => kms.api('/v1/keys', { body }), 401, 'unauthenticated');
      const { token: reader } = await kms.issue({ scope: ['kms:read_key'], keys: ['*'] });
      await expectRefusal(() => kms.api('/v1/keys', { token: reader, body }), 403, 'forbidden');
    }
  });
});
