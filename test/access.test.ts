import { createHmac, generateKeyPairSync, sign } from 'node:crypto';
import { MovedClock } from '@bundoc/shared/testing/moved-clock';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

const clock = new MovedClock();
let installation: Installation;
const tokens = new Map<string, string | undefined>();
beforeAll(async () => {
  installation = await Installation.start({ clock });
  const make = (scope: ('docs:read' | 'docs:write' | 'docs:admin')[], projects: string[]) =>
    installation.client(projects, scope);
  const all = await make(['docs:read', 'docs:write', 'docs:admin'], ['*']);
  await call(installation.url, DOCUMENT, { method: 'PUT', token: all, body: '{"v":1}' });
  await call(installation.url, NOTES, { method: 'PUT', token: all, body: '{}' });
  const [head = '', payload = '', signature = ''] = all.split('.');
  const claims = JSON.parse(Buffer.from(payload, 'base64url').toString()) as Record<string, unknown>;
  const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const stranger = generateKeyPairSync('ed25519').privateKey;
  const signed = (header: object, body: object) => {
    const input = `${encode(header)}.${encode(body)}`;
    return `${input}.${sign(null, Buffer.from(input), stranger).toString('base64url')}`;
  };
  const { kid } = JSON.parse(Buffer.from(head, 'base64url').toString()) as { kid: string };
  const jwks = (await call(installation.kms.apiUrl, '/.well-known/jwks.json')).text;
  const hmacInput = `${encode({ alg: 'HS256', typ: 'JWT', kid })}.${payload}`;

  for (const [name, token] of Object.entries({
    none: undefined,
    garbage: 'a.b.c',
    'alg none': `${encode({ alg: 'none', kid })}.${payload}.`,
    'HS256 with the public key': `${hmacInput}.${createHmac('sha256', jwks).update(hmacInput).digest('base64url')}`,
    'signed by a stranger': signed({ alg: 'EdDSA', kid }, claims),
    'unknown kid': signed({ alg: 'EdDSA', kid: 'other' }, claims),
    'changed payload': `${head}.${encode({ ...claims, projects: ['x'] })}.${signature}`,
    'changed signature': `${head}.${payload}.${signature.startsWith('A') ? 'B' : 'A'}${signature.slice(1)}`,
    'of BunKMS': await installation.issue({
      sub: 's',
      typ: 'service',
      scope: ['kms:admin'],
      keys: ['*'],
      projects: ['*'],
    }),
    'read only': await make(['docs:read'], ['matrix']),
    'write only': await make(['docs:write'], ['matrix']),
    'admin only': await make(['docs:admin'], ['matrix']),
    'every right': await make(['docs:read', 'docs:write', 'docs:admin'], ['matrix']),
    'read and write': await make(['docs:read', 'docs:write'], ['matrix']),
    'another project': await make(['docs:read', 'docs:write'], ['matrix-2', 'matri']),
    'no project': await installation.issue(
      { sub: 'c', typ: 'client', scope: ['docs:read', 'docs:write'] },
      { unchecked: true },
    ),
    'every project': await make(['docs:read', 'docs:write'], ['*']),
    'service for Bundoc': await installation.issue({
      sub: 's',
      typ: 'service',
      scope: ['docs:read', 'docs:write'],
      projects: ['Matrix'],
    }),
    'service for metrics': await installation.issue({ sub: 's', typ: 'service', scope: ['docs:metrics'] }),
    'client for metrics': await installation.issue(
      { sub: 'c', typ: 'client', scope: ['docs:metrics'] },
      { unchecked: true },
    ),
  }))
    tokens.set(name, token);
});
afterAll(() => installation[Symbol.asyncDispose]());

const COLLECTION = '/v1/projects/matrix/collections/notes/documents';
const DOCUMENT = `${COLLECTION}/a`;

/** `list`: to list the projects of the token, whichever they are. */
type Right = 'list' | 'read' | 'write' | 'admin' | 'metrics';

interface Route {
  readonly method: string;
  readonly path: string;
  readonly needs: readonly Right[];
  /** The answer to a token that has all that the route needs. */
  readonly success: number;
  readonly body?: string;
  readonly type?: string;
}

const PROJECT = '/v1/projects/matrix';
const NOTES = `${PROJECT}/collections/notes`;
const QUERY = '{"where":{}}';

/** Every route. */
const routes: readonly Route[] = [
  { method: 'POST', path: COLLECTION, needs: ['write'], success: 201, body: '{"v":1}' },
  { method: 'PUT', path: DOCUMENT, needs: ['write'], success: 200, body: '{"v":1}' },
  { method: 'GET', path: DOCUMENT, needs: ['read'], success: 200 },
  { method: 'HEAD', path: DOCUMENT, needs: ['read'], success: 200 },
  {
    method: 'PATCH',
    path: DOCUMENT,
    needs: ['read', 'write'],
    success: 200,
    body: '{"v":1}',
    type: 'application/merge-patch+json',
  },
  { method: 'DELETE', path: `${COLLECTION}/to-delete`, needs: ['write'], success: 204 },
  { method: 'GET', path: COLLECTION, needs: ['read'], success: 200 },
  { method: 'POST', path: `${NOTES}/query`, needs: ['read'], success: 200, body: QUERY },
  { method: 'POST', path: `${NOTES}/count`, needs: ['read'], success: 200, body: QUERY },
  {
    method: 'POST',
    path: `${NOTES}/aggregate`,
    needs: ['read'],
    success: 200,
    body: '{"figures":{"all":{"op":"count"}}}',
  },
  {
    method: 'POST',
    path: `${NOTES}/update`,
    needs: ['read', 'write'],
    success: 200,
    body: '{"where":{"v":-1},"update":{"$inc":{"v":1}}}',
  },
  {
    method: 'POST',
    path: `${NOTES}/delete`,
    needs: ['read', 'write'],
    success: 200,
    body: '{"where":{"v":-1}}',
  },
  {
    method: 'POST',
    path: `${PROJECT}/batch`,
    needs: ['write'],
    success: 200,
    body: '{"operations":[{"op":"put","collection":"notes","id":"b","document":{}}]}',
  },
  { method: 'GET', path: `${PROJECT}/changes`, needs: ['read'], success: 200 },
  { method: 'GET', path: '/v1/projects', needs: ['list'], success: 200 },
  { method: 'GET', path: PROJECT, needs: ['read'], success: 200 },
  // It would destroy the project. Without a confirmation, an authorized request is incomplete.
  { method: 'DELETE', path: PROJECT, needs: ['admin'], success: 400 },
  { method: 'GET', path: `${PROJECT}/backup`, needs: ['admin'], success: 200 },
  // This installation has no other storage.
  { method: 'POST', path: `${PROJECT}/move`, needs: ['admin'], success: 409 },
  { method: 'GET', path: `${PROJECT}/collections`, needs: ['read'], success: 200 },
  { method: 'PUT', path: NOTES, needs: ['admin'], success: 200, body: '{}' },
  { method: 'GET', path: NOTES, needs: ['read'], success: 200 },
  {
    method: 'POST',
    path: `${NOTES}/schema-check`,
    needs: ['read', 'admin'],
    success: 200,
    body: '{"schema":{}}',
  },
  { method: 'DELETE', path: `${PROJECT}/collections/to-remove/definition`, needs: ['admin'], success: 204 },
  {
    method: 'DELETE',
    path: `${PROJECT}/collections/to-drop/documents?confirm=to-drop`,
    needs: ['admin'],
    success: 200,
  },
  { method: 'GET', path: '/metrics', needs: ['metrics'], success: 200 },
  { method: 'GET', path: '/', needs: [], success: 200 },
  { method: 'GET', path: '/openapi.json', needs: [], success: 200 },
  { method: 'GET', path: '/health', needs: [], success: 200 },
  { method: 'GET', path: '/ready', needs: [], success: 200 },
];

/** What a batch needs depends on its operations. */
const batches: readonly Route[] = [
  {
    method: 'POST',
    path: `${PROJECT}/batch`,
    needs: ['read', 'write'],
    success: 200,
    body: '{"operations":[{"op":"patch","collection":"notes","id":"a","merge":{"v":1}}]}',
  },
];

/** What each kind of token may do: 401 for a token that is not valid. */
const kinds: Readonly<Record<string, 401 | readonly Right[]>> = {
  none: 401,
  garbage: 401,
  'alg none': 401,
  'HS256 with the public key': 401,
  'signed by a stranger': 401,
  'unknown kid': 401,
  'changed payload': 401,
  'changed signature': 401,
  'of BunKMS': 401,
  'read only': ['list', 'read'],
  'write only': ['write'],
  'admin only': ['admin'],
  'every right': ['list', 'read', 'write', 'admin'],
  'read and write': ['list', 'read', 'write'],
  'another project': ['list'],
  'no project': ['list'],
  'every project': ['list', 'read', 'write'],
  'service for Bundoc': ['list', 'read', 'write'],
  'service for metrics': ['metrics'],
  'client for metrics': [],
};

describe('the authorisation matrix of Bundoc', () => {
  it('covers every kind of token', () => {
    expect([...tokens.keys()]).toEqual(Object.keys(kinds));
  });

  it('covers every operation of the API', async () => {
    const { text } = await call(installation.url, '/openapi.json');
    const { paths } = JSON.parse(text) as { paths: Record<string, Record<string, unknown>> };
    const operations = Object.entries(paths).flatMap(([path, methods]) =>
      Object.keys(methods)
        .filter((method) => ['get', 'head', 'put', 'post', 'patch', 'delete'].includes(method))
        .map((method) => `${method.toUpperCase()} ${path}`),
    );
    const templateOf = (path: string) =>
      path
        .replace(/\?.*/, '')
        .replace(/(?<=projects\/)[^/]+/, '{project}')
        .replace(/(?<=collections\/)[^/]+/, '{collection}')
        .replace(/(?<=documents\/)[^/]+/, '{id}');
    const covered = routes.map(({ method, path }) => `${method} ${templateOf(path)}`);
    expect(covered.sort()).toEqual(operations.sort());
  });

  for (const [kind, grants] of Object.entries(kinds)) {
    for (const { method, path, needs, success, body, type } of [...routes, ...batches]) {
      const isAllowed = grants !== 401 && needs.every((right) => grants.includes(right));
      const refusal = grants === 401 ? 401 : 403;
      const expected = needs.length === 0 || isAllowed ? success : refusal;
      it(`answers ${expected} to ${method} ${path.replace(COLLECTION, '…')} with a token: ${kind}`, async () => {
        if (/\/to-(delete|remove)/.test(path))
          await call(installation.url, path.replace('/definition', ''), {
            method: 'PUT',
            token: tokens.get('every right'),
            body: '{}',
          });
        const answer = await call(installation.url, path, {
          method,
          token: tokens.get(kind),
          ...(body === undefined ? {} : { body }),
          ...(type === undefined ? {} : { headers: { 'content-type': type } }),
        });
        expect(answer.status).toBe(expected);
        const isSent = tokens.get(kind) !== undefined;
        if (expected === 401)
          expect(answer.headers['www-authenticate']).toBe(isSent ? 'Bearer error="invalid_token"' : 'Bearer');
        if (expected === 403)
          expect(answer.headers['www-authenticate']).toBe('Bearer error="insufficient_scope"');
      });
    }
  }

  it('refuses before it looks anything up: the answer is the same whether or not the project or document exists', async () => {
    const answers = new Set<string>();
    for (const path of [DOCUMENT, `${COLLECTION}/nothing`, DOCUMENT.replace('matrix', 'never')]) {
      const { status, text } = await call(installation.url, path, { token: tokens.get('no project') });
      answers.add(`${status} ${text.replace(/"request_id":"[^"]*"/, '')}`);
    }
    expect(answers.size).toBe(1);
    expect(await installation.stored.ids()).toEqual(['matrix']);
  });

  it('gives the same answer to every token that is not valid', async () => {
    const answers = new Set<string>();
    for (const [kind, grants] of Object.entries(kinds)) {
      const token = tokens.get(kind);
      // Without a token, the answer says how to send one.
      if (grants !== 401 || token === undefined) continue;
      const { text } = await call(installation.url, DOCUMENT, { token });
      answers.add(text.replace(/"request_id":"[^"]*"/, ''));
    }
    expect(answers.size).toBe(1);
  });

  it('refuses a token as soon as it has expired, even one that it accepted before', async () => {
    const token = await installation.client(['*'], ['docs:read']);
    expect((await call(installation.url, DOCUMENT, { token })).status).toBe(200);
    clock.movedMs = 3_600_000;
    expect((await call(installation.url, DOCUMENT, { token })).status).toBe(401);
  });
});
