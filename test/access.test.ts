import { createHmac, generateKeyPairSync, sign } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';
import { MovedClock } from './support/moved-clock.ts';

const clock = new MovedClock();
let installation: Installation;
const tokens = new Map<string, string | undefined>();
beforeAll(async () => {
  installation = await Installation.start({ clock });
  const make = (scope: ('docs:read' | 'docs:write' | 'docs:admin' | 'docs:metrics')[], projects: string[]) =>
    installation.client(projects, scope);
  const all = await make(['docs:read', 'docs:write', 'docs:admin'], ['*']);
  await call(installation.url, DOCUMENT, { method: 'PUT', token: all, body: '{"v":1}' });
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
    'read and write': await make(['docs:read', 'docs:write'], ['matrix']),
    'another project': await make(['docs:read', 'docs:write'], ['matrix-2', 'matri']),
    'no project': await make(['docs:read', 'docs:write'], []),
    'every project': await make(['docs:read', 'docs:write'], ['*']),
    'service for Bundoc': await installation.issue({
      sub: 's',
      typ: 'service',
      scope: ['docs:read', 'docs:write'],
      projects: ['Matrix'],
    }),
    'service for metrics': await installation.issue({ sub: 's', typ: 'service', scope: ['docs:metrics'] }),
    'client for metrics': await make(['docs:metrics'], []),
  }))
    tokens.set(name, token);
});
afterAll(() => installation[Symbol.asyncDispose]());

const COLLECTION = '/v1/projects/matrix/collections/notes/documents';
const DOCUMENT = `${COLLECTION}/a`;

interface Route {
  readonly method: string;
  readonly path: string;
  readonly needs: 'read' | 'write' | 'metrics' | 'nothing';
  readonly success: number;
}

/** Every route. */
const routes: readonly Route[] = [
  { method: 'POST', path: COLLECTION, needs: 'write', success: 201 },
  { method: 'PUT', path: DOCUMENT, needs: 'write', success: 200 },
  { method: 'GET', path: DOCUMENT, needs: 'read', success: 200 },
  { method: 'HEAD', path: DOCUMENT, needs: 'read', success: 200 },
  { method: 'DELETE', path: `${COLLECTION}/to-delete`, needs: 'write', success: 204 },
  { method: 'GET', path: COLLECTION, needs: 'read', success: 200 },
  { method: 'GET', path: '/v1/projects/matrix/changes', needs: 'read', success: 200 },
  { method: 'GET', path: '/metrics', needs: 'metrics', success: 200 },
  { method: 'GET', path: '/health', needs: 'nothing', success: 200 },
  { method: 'GET', path: '/ready', needs: 'nothing', success: 200 },
];

/** What each kind of token may do: 401 for a token that is not valid. */
const kinds: Readonly<Record<string, 401 | readonly Route['needs'][]>> = {
  none: 401,
  garbage: 401,
  'alg none': 401,
  'HS256 with the public key': 401,
  'signed by a stranger': 401,
  'unknown kid': 401,
  'changed payload': 401,
  'changed signature': 401,
  'of BunKMS': 401,
  'read only': ['read'],
  'write only': ['write'],
  'admin only': [],
  'read and write': ['read', 'write'],
  'another project': [],
  'no project': [],
  'every project': ['read', 'write'],
  'service for Bundoc': ['read', 'write'],
  'service for metrics': ['metrics'],
  'client for metrics': [],
};

describe('the authorisation matrix of Bundoc', () => {
  it('covers every kind of token', () => {
    expect([...tokens.keys()]).toEqual(Object.keys(kinds));
  });

  for (const [kind, grants] of Object.entries(kinds)) {
    for (const { method, path, needs, success } of routes) {
      const expected =
        needs === 'nothing' ? success : grants === 401 ? 401 : grants.includes(needs) ? success : 403;
      it(`answers ${expected} to ${method} ${path.replace(COLLECTION, '…')} with a token: ${kind}`, async () => {
        if (method === 'DELETE')
          await call(installation.url, path, {
            method: 'PUT',
            token: tokens.get('every project'),
            body: '{}',
          });
        const answer = await call(installation.url, path, {
          method,
          token: tokens.get(kind),
          ...(method === 'PUT' || method === 'POST' ? { body: '{"v":1}' } : {}),
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
      if (grants !== 401) continue;
      const { text } = await call(installation.url, DOCUMENT, { token: tokens.get(kind) });
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
