import { createHmac, createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto';
import { createRequire } from 'node:module';
import Fastify, { type FastifyInstance } from 'fastify';
import { beforeEach, describe, expect, it } from 'vitest';
import { AppError } from '../contract/app-error.ts';
import type { Claims } from '../contract/tokens.ts';
import { createLogger } from '../runtime/logger.ts';
import { FakeClock } from '../testing/fake-clock.ts';
import { loadWycheproof, unhex } from '../testing/wycheproof.ts';
import { BearerAuth } from './bearer-auth.ts';
import { createHttpServer } from './server.ts';

const issuer = generateKeyPairSync('ed25519');
const stranger = generateKeyPairSync('ed25519');
const rsa = generateKeyPairSync('rsa', { modulusLength: 2_048 });
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const KID = 'kid-1';

const pemOf = (key: KeyObject) => key.export({ type: 'spki', format: 'pem' }) as string;
const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** The published keys; tests change them. */
let published: Map<string, string>;
let findError: Error | undefined;
let finds: string[];
let revoked: Set<string>;
let clock: FakeClock;
let app: FastifyInstance;

async function build(
  audience: 'bunkms' | 'bundoc' = 'bundoc',
  write: (line: string) => void = () => undefined,
): Promise<FastifyInstance> {
  const logger = createLogger({ service: 'bundoc', level: 'info', destination: { write } });
  const server = createHttpServer({ logger, bodyBytesMax: 100 });
  const auth = new BearerAuth({
    audience,
    clock,
    isRevoked: ({ jti }) => revoked.has(jti),
    keys: {
      find: async (kid) => {
        finds.push(kid);
        if (findError !== undefined) throw findError;
        return published.get(kid);
      },
      isCurrent: (kid) => published.has(kid),
    },
  });
  await auth.register(server);
  server.get('/me', async (request) => auth.authenticate(request));
  return server;
}

beforeEach(async () => {
  published = new Map([[KID, pemOf(issuer.publicKey)]]);
  findError = undefined;
  finds = [];
  revoked = new Set();
  clock = new FakeClock();
  app = await build();
  return () => app.close();
});

const JTI = '3f8f1c1e-9f0b-4b52-8a8c-0b8a6f6f2d11';

function claims(changes: Record<string, unknown> = {}): Record<string, unknown> {
  const iat = Math.floor(clock.now() / 1000);
  const all: Record<string, unknown> = {
    iss: 'bunkms',
    aud: 'bundoc',
    sub: 'app',
    typ: 'client',
    scope: 'docs:read docs:write',
    projects: ['project-a'],
    jti: JTI,
    iat,
    exp: iat + 3_600,
    ...changes,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

interface TokenOptions {
  readonly header?: unknown;
  readonly payload?: unknown;
  readonly signer?: (input: Buffer) => Buffer;
}

const HEADER = { alg: 'EdDSA', typ: 'JWT', kid: KID };

function token({ header = HEADER, payload = claims(), signer }: TokenOptions = {}): string {
  const input = `${encode(header)}.${encode(payload)}`;
  const signature = (signer ?? ((bytes) => sign(null, bytes, issuer.privateKey)))(Buffer.from(input));
  return `${input}.${signature.toString('base64url')}`;
}

async function ask(authorization: string | undefined, server: FastifyInstance = app) {
  const answer = await server.inject({
    url: '/me',
    headers: authorization === undefined ? {} : { authorization },
  });
  return {
    status: answer.statusCode,
    body: answer.json() as Record<string, unknown>,
    headers: answer.headers,
  };
}

/** Every refusal, without its request id. */
const REFUSAL = {
  type: 'about:blank',
  title: 'A valid bearer token is required',
  status: 401,
  code: 'unauthenticated',
  request_id: expect.any(String),
};

async function expectRefused(authorization: string | undefined): Promise<void> {
  const { status, body, headers } = await ask(authorization);
  expect(status).toBe(401);
  expect(body).toEqual(REFUSAL);
  const isBearer = authorization !== undefined && /^bearer\b/i.test(authorization);
  expect(headers['www-authenticate']).toBe(isBearer ? 'Bearer error="invalid_token"' : 'Bearer');
}

async function expectAccepted(authorization: string): Promise<Claims> {
  const { status, body } = await ask(authorization);
  expect(body).toMatchObject({ jti: JTI });
  expect(status).toBe(200);
  return body as unknown as Claims;
}

describe('a good token', () => {
  it('gives its claims, with empty lists for those that are absent', async () => {
    expect(await expectAccepted(`Bearer ${token()}`)).toEqual({
      ...claims(),
      scope: ['docs:read', 'docs:write'],
      keys: [],
    });
  });

  it('is accepted with the scheme in any case, as RFC 9110 requires', async () => {
    for (const scheme of ['bearer', 'BEARER', 'bEaReR']) await expectAccepted(`${scheme} ${token()}`);
  });

  it('is refused as soon as it is revoked, even when its verification is cached', async () => {
    const text = token();
    await expectAccepted(`Bearer ${text}`);
    revoked.add(JTI);
    await expectRefused(`Bearer ${text}`);
    await expectRefused(`Bearer ${token({ payload: claims({ sub: 'other' }) })}`);
    revoked.clear();
    await expectAccepted(`Bearer ${text}`);
  });

  it('is verified once, and then cached', async () => {
    const text = token();
    await expectAccepted(`Bearer ${text}`);
    await expectAccepted(`Bearer ${text}`);
    await expectAccepted(`bearer ${text}`);
    expect(finds).toEqual([KID]);
  });

  it('cannot get more rights from the handler of an earlier request', async () => {
    const taken: Claims[] = [];
    const server = Fastify();
    const auth = new BearerAuth({
      audience: 'bundoc',
      clock,
      keys: { find: async (kid) => published.get(kid), isCurrent: (kid) => published.has(kid) },
    });
    await auth.register(server);
    server.get('/me', async (request) => {
      taken.push(await auth.authenticate(request));
      return {};
    });
    const authorization = `Bearer ${token()}`;
    await server.inject({ url: '/me', headers: { authorization } });
    expect(() => taken[0]?.projects.push('*')).toThrow(TypeError);
    expect(() => Object.assign(taken[0] ?? {}, { sub: 'root' })).toThrow(TypeError);
    await server.inject({ url: '/me', headers: { authorization } });
    expect(taken[1]?.projects).toEqual(['project-a']);
    await server.close();
  });

  it('may have been issued slightly in the future, by a clock that runs ahead', async () => {
    const iat = Math.floor(clock.now() / 1000) + 60;
    await expectAccepted(`Bearer ${token({ payload: claims({ iat }) })}`);
  });
});

describe('every refused token gets the same 401', () => {
  const seconds = (offset: number) => Math.floor(clock.now() / 1000) + offset;
  const hs256 = (secret: string) => ({
    header: { ...HEADER, alg: 'HS256' },
    signer: (input: Buffer) => createHmac('sha256', secret).update(input).digest(),
  });

  it.each<[string, () => string | undefined]>([
    ['no header', () => undefined],
    ['an empty header', () => ''],
    ['Basic', () => 'Basic dXNlcjpwYXNz'],
    ['another scheme with a good token', () => `Token ${token()}`],
    ['a longer scheme', () => `Bearers ${token()}`],
    ['the scheme alone', () => 'Bearer'],
    ['the scheme and a space', () => 'Bearer '],
    ['the token alone', () => token()],
    ['two spaces', () => `Bearer  ${token()}`],
    ['a tab', () => `Bearer\t${token()}`],
    ['a token and more', () => `Bearer ${token()} x`],
    ['two tokens', () => `Bearer ${token()}, Bearer ${token()}`],
    ['a quoted token', () => `Bearer "${token()}"`],
    ['garbage', () => 'Bearer garbage'],
    ['dots', () => 'Bearer ..'],
    ['two segments', () => `Bearer ${token().split('.').slice(0, 2).join('.')}`],
    ['four segments', () => `Bearer ${token()}.x`],
    ['five segments, as of an encrypted token', () => `Bearer ${token()}.x.y`],
    ['a padded signature', () => `Bearer ${token()}==`],
    ['a token of many kilobytes', () => `Bearer ${token({ payload: claims({ x: 'a'.repeat(12_288) }) })}`],
    ['no signature', () => `Bearer ${token().replace(/[^.]*$/, '')}`],
    ['a signature of zeros', () => `Bearer ${token({ signer: () => Buffer.alloc(64) })}`],
    [
      'a truncated signature',
      () => `Bearer ${token({ signer: (input) => sign(null, input, issuer.privateKey).subarray(0, 63) })}`,
    ],
    [
      'an extended signature',
      () =>
        `Bearer ${token({ signer: (input) => Buffer.concat([sign(null, input, issuer.privateKey), Buffer.alloc(1)]) })}`,
    ],
    [
      "a stranger's signature",
      () => `Bearer ${token({ signer: (input) => sign(null, input, stranger.privateKey) })}`,
    ],
    ['a header that is not JSON', () => `Bearer e30x.${token().split('.').slice(1).join('.')}`],
    ['a header that is a list', () => `Bearer ${token({ header: [] })}`],
    ['a payload that is text', () => `Bearer ${token({ payload: 'text' })}`],
    ['a payload that is null', () => `Bearer ${token({ payload: null })}`],
    ['alg none', () => `Bearer ${token({ header: { ...HEADER, alg: 'none' } })}`],
    [
      'alg none and no signature',
      () => `Bearer ${token({ header: { ...HEADER, alg: 'none' }, signer: () => Buffer.alloc(0) })}`,
    ],
    ['alg None', () => `Bearer ${token({ header: { ...HEADER, alg: 'None' } })}`],
    ['alg eddsa', () => `Bearer ${token({ header: { ...HEADER, alg: 'eddsa' } })}`],
    ['no alg', () => `Bearer ${token({ header: { kid: KID } })}`],
    ['a list of algs', () => `Bearer ${token({ header: { ...HEADER, alg: ['EdDSA'] } })}`],
    ['HS256 with the public key as secret', () => `Bearer ${token(hs256(pemOf(issuer.publicKey)))}`],
    [
      'HS256 with the trimmed public key as secret',
      () => `Bearer ${token(hs256(pemOf(issuer.publicKey).trim()))}`,
    ],
    ['HS256 with an empty secret', () => `Bearer ${token(hs256(''))}`],
    [
      'RS256',
      () =>
        `Bearer ${token({ header: { ...HEADER, alg: 'RS256' }, signer: (input) => sign('sha256', input, rsa.privateKey) })}`,
    ],
    [
      'ES256',
      () =>
        `Bearer ${token({ header: { ...HEADER, alg: 'ES256' }, signer: (input) => sign('sha256', input, { key: ec.privateKey, dsaEncoding: 'ieee-p1363' }) })}`,
    ],
    ['an unknown kid', () => `Bearer ${token({ header: { ...HEADER, kid: 'other' } })}`],
    ['no kid', () => `Bearer ${token({ header: { alg: 'EdDSA' } })}`],
    ['an empty kid', () => `Bearer ${token({ header: { ...HEADER, kid: '' } })}`],
    ['a kid that is a number', () => `Bearer ${token({ header: { ...HEADER, kid: 1 } })}`],
    ['a kid of kilobytes', () => `Bearer ${token({ header: { ...HEADER, kid: 'k'.repeat(2_000) } })}`],
    [
      'a kid that is a name of Object.prototype',
      () => `Bearer ${token({ header: { ...HEADER, kid: '__proto__' } })}`,
    ],
    [
      'its own key in the header',
      () =>
        `Bearer ${token({ header: { alg: 'EdDSA', jwk: stranger.publicKey.export({ format: 'jwk' }) }, signer: (input) => sign(null, input, stranger.privateKey) })}`,
    ],
    ['an unknown critical extension', () => `Bearer ${token({ header: { ...HEADER, crit: ['x'], x: 1 } })}`],
    ['a wrong issuer', () => `Bearer ${token({ payload: claims({ iss: 'other' }) })}`],
    ['a list of issuers', () => `Bearer ${token({ payload: claims({ iss: ['bunkms'] }) })}`],
    ['the other service as audience', () => `Bearer ${token({ payload: claims({ aud: 'bunkms' }) })}`],
    ['an unknown audience', () => `Bearer ${token({ payload: claims({ aud: 'x' }) })}`],
    ['a list of audiences', () => `Bearer ${token({ payload: claims({ aud: ['bundoc'] }) })}`],
    [
      'a list with both audiences',
      () => `Bearer ${token({ payload: claims({ aud: ['bunkms', 'bundoc'] }) })}`,
    ],
    ...['iss', 'aud', 'sub', 'typ', 'scope', 'jti', 'iat', 'exp'].map((name): [string, () => string] => [
      `no ${name}`,
      () => `Bearer ${token({ payload: claims({ [name]: undefined }) })}`,
    ]),
    ...['iss', 'aud', 'sub', 'typ', 'scope', 'jti', 'iat', 'exp', 'projects', 'keys'].map(
      (name): [string, () => string] => [
        `${name} null`,
        () => `Bearer ${token({ payload: claims({ [name]: null }) })}`,
      ],
    ),
    ['exp as text', () => `Bearer ${token({ payload: claims({ exp: '9999999999' }) })}`],
    ['exp with a fraction', () => `Bearer ${token({ payload: claims({ exp: seconds(10) + 0.5 }) })}`],
    ['exp in milliseconds beyond all integers', () => `Bearer ${token({ payload: claims({ exp: 1e300 }) })}`],
    ['scope as a list', () => `Bearer ${token({ payload: claims({ scope: ['docs:read'] }) })}`],
    ['projects as text', () => `Bearer ${token({ payload: claims({ projects: '*' }) })}`],
    ['an invalid project', () => `Bearer ${token({ payload: claims({ projects: ['../x'] }) })}`],
    ['a jti that is not a UUID', () => `Bearer ${token({ payload: claims({ jti: '1' }) })}`],
    ['an unknown type', () => `Bearer ${token({ payload: claims({ typ: 'admin' }) })}`],
    ['expired', () => `Bearer ${token({ payload: claims({ exp: seconds(-1) }) })}`],
    ['expiring in this very second', () => `Bearer ${token({ payload: claims({ exp: seconds(0) }) })}`],
    ['issued in the future', () => `Bearer ${token({ payload: claims({ iat: seconds(61) }) })}`],
    ['not valid yet', () => `Bearer ${token({ payload: claims({ nbf: seconds(61) }) })}`],
    ['a bad nbf', () => `Bearer ${token({ payload: claims({ nbf: 'now' }) })}`],
  ])('%s', async (_what, authorization) => {
    await expectRefused(authorization());
    await expectRefused(authorization()); // And again: no refusal is cached as an acceptance.
  });

  it('is the same when a published key is not an Ed25519 key', async () => {
    for (const key of [rsa.publicKey, ec.publicKey]) {
      published.set(KID, pemOf(key));
      await expectRefused(`Bearer ${token()}`);
    }
    published.set(KID, 'no key at all');
    await expectRefused(`Bearer ${token()}`);
  });

  it('looks up no key when the header cannot name one', async () => {
    await expectRefused(`Bearer ${token({ header: { ...HEADER, kid: 'k'.repeat(65) } })}`);
    await expectRefused('Bearer a.b.c');
    expect(finds).toEqual([]);
  });
});

describe('a token whose verification is cached', () => {
  it('is refused once it expires', async () => {
    const authorization = `Bearer ${token()}`;
    await expectAccepted(authorization);
    clock.advance(3_599_000);
    await expectAccepted(authorization);
    clock.advance(1_000);
    await expectRefused(authorization);
  });

  it('is refused while its key is withdrawn, and accepted when the key is back', async () => {
    const authorization = `Bearer ${token()}`;
    await expectAccepted(authorization);
    const pem = published.get(KID) ?? '';
    published.delete(KID);
    await expectRefused(authorization);
    published.set(KID, pem);
    await expectAccepted(authorization);
  });

  it('is refused before its nbf and accepted from then on, by the same clock', async () => {
    const nbf = Math.floor(clock.now() / 1000) + 120;
    const authorization = `Bearer ${token({ payload: claims({ nbf }) })}`;
    await expectRefused(authorization);
    clock.advance(60_000);
    await expectAccepted(authorization);
    clock.setWall(clock.now() - 120_000);
    await expectRefused(authorization);
  });

  it('does not validate a token with the same signature and other claims', async () => {
    const good = token();
    await expectAccepted(`Bearer ${good}`);
    const [header, , signature] = good.split('.');
    await expectRefused(`Bearer ${header}.${encode(claims({ projects: ['*'] }))}.${signature}`);
  });

  it('has no second spelling: unused bits at the end of the signature must be zero', async () => {
    const good = token();
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
    const last = alphabet.indexOf(good.at(-1) ?? '');
    for (let bits = 1; bits < 16; bits++) {
      const other = good.slice(0, -1) + alphabet[last ^ bits];
      expect(Buffer.from(other.split('.')[2] ?? '', 'base64url')).toEqual(
        Buffer.from(good.split('.')[2] ?? '', 'base64url'),
      );
      await expectRefused(`Bearer ${other}`);
    }
    await expectAccepted(`Bearer ${good}`);
  });

  it('is valid for its own service only', async () => {
    const kms = await build('bunkms');
    const payload = claims({ aud: 'bunkms' });
    expect((await ask(`Bearer ${token({ payload })}`, kms)).status).toBe(200);
    expect((await ask(`Bearer ${token()}`, kms)).status).toBe(401);
    await kms.close();
  });
});

describe('a key source that fails', () => {
  it('has its own refusal passed on, with its code and Retry-After', async () => {
    findError = new AppError('kms_unavailable', { retryAfterS: 7 });
    const { status, body, headers } = await ask(`Bearer ${token()}`);
    expect(status).toBe(503);
    expect(body['code']).toBe('kms_unavailable');
    expect(headers['retry-after']).toBe('7');
  });

  it('answers 500 for a defect, not 401', async () => {
    findError = new TypeError('planted-secret');
    const { status, body } = await ask(`Bearer ${token()}`);
    expect(status).toBe(500);
    expect(JSON.stringify(body)).not.toContain('planted');
  });

  it('does not affect cached tokens, and is asked again for others', async () => {
    const authorization = `Bearer ${token()}`;
    await expectAccepted(authorization);
    findError = new AppError('kms_unavailable');
    await expectAccepted(authorization);
    const other = `Bearer ${token({ payload: claims({ sub: 'other' }) })}`;
    expect((await ask(other)).status).toBe(503);
    findError = undefined;
    expect((await ask(other)).status).toBe(200);
  });
});

interface JwsGroup {
  readonly public?: JsonWebKey & { readonly kid?: string };
  readonly private?: JsonWebKey & { readonly kid?: string };
}
type JsonWebKey = Readonly<Record<string, unknown>>;
const jws = loadWycheproof<JwsGroup, { readonly jws: unknown }>('json_web_signature_test.json');

describe.skipIf(jws === undefined)('JSON Web Signatures, published vectors', () => {
  it('are all refused, valid or not, under their own keys: none is an EdDSA token', async () => {
    let refused = 0;
    let notText = 0;
    for (const group of jws ?? []) {
      const jwk = group.public ?? group.private ?? {};
      const kid = String(jwk['kid']);
      published.set(
        kid,
        jwk['kty'] === 'oct'
          ? Buffer.from(String(jwk['k']), 'base64url').toString('latin1')
          : pemOf(createPublicKey({ key: jwk, format: 'jwk' })),
      );
      for (const test of group.tests) {
        if (typeof test.jws !== 'string' || /[^\x20-\x7e]/.test(test.jws)) {
          notText++;
          continue;
        }
        await expectRefused(`Bearer ${test.jws}`);
        refused++;
      }
    }
    expect(notText).toBeLessThan(20);
    expect(refused).toBeGreaterThanOrEqual(380);
  });
});

interface EddsaGroup {
  readonly publicKeyPem: string;
}
const eddsa = loadWycheproof<EddsaGroup, { readonly msg: string; readonly sig: string }>('ed25519_test.json');

describe.skipIf(eddsa === undefined)('Ed25519, published vectors', () => {
  type VerifySignature = (alg: string, pem: Buffer, input: Buffer, signature: string) => boolean;
  const jwt = createRequire(createRequire(import.meta.url).resolve('@fastify/jwt'));
  const { verifySignature } = jwt('fast-jwt/src/crypto.js') as { verifySignature: VerifySignature };

  it('get the right verdict from the signature check of the token plugin, in the encoding of tokens', () => {
    let accepted = 0;
    let refused = 0;
    for (const group of eddsa ?? []) {
      for (const test of group.tests) {
        const signature = unhex(test.sig).toString('base64url');
        const isValid = verifySignature('EdDSA', Buffer.from(group.publicKeyPem), unhex(test.msg), signature);
        expect(isValid, `tcId ${test.tcId} ${test.comment}`).toBe(test.result === 'valid');
        expect(verify(null, unhex(test.msg), group.publicKeyPem, unhex(test.sig))).toBe(isValid);
        if (isValid) accepted++;
        else refused++;
      }
    }
    expect(accepted).toBeGreaterThanOrEqual(80);
    expect(refused).toBeGreaterThanOrEqual(60);
  });

  it('are refused as signatures of a token, under their own keys', async () => {
    let refused = 0;
    for (const group of eddsa ?? []) {
      published.set(KID, group.publicKeyPem);
      for (const test of group.tests) {
        await expectRefused(`Bearer ${token({ signer: () => unhex(test.sig) })}`);
        refused++;
      }
    }
    expect(refused).toBeGreaterThanOrEqual(150);
  });

  it('exclude a second signature for a token: S + L is refused', async () => {
    const L = 2n ** 252n + 27742317777372353535851937790883648493n;
    const shifted = token({
      signer: (input) => {
        const signature = sign(null, input, issuer.privateKey);
        const s = BigInt(`0x${Buffer.from(signature.subarray(32)).reverse().toString('hex')}`) + L;
        const bytes = Buffer.from(s.toString(16).padStart(64, '0'), 'hex').reverse();
        return Buffer.concat([signature.subarray(0, 32), bytes]);
      },
    });
    await expectRefused(`Bearer ${shifted}`);
  });
});

describe('a token that names its algorithm as RFC 9864 does', () => {
  const header = { ...HEADER, alg: 'Ed25519' };

  it('is accepted like one that says EdDSA, and cached', async () => {
    const text = `Bearer ${token({ header })}`;
    await expectAccepted(text);
    await expectAccepted(text);
    expect(finds).toEqual([KID]);
  });

  it.each<[string, TokenOptions]>([
    ["a stranger's signature", { header, signer: (bytes) => sign(null, bytes, stranger.privateKey) }],
    ['no signature', { header, signer: () => Buffer.alloc(0) }],
    ['another spelling of the name', { header: { ...header, alg: 'ed25519' } }],
    ['a curve that is not supported', { header: { ...header, alg: 'Ed448' } }],
    ['a critical extension', { header: { ...header, crit: ['exp'] } }],
    ['an unknown kid', { header: { ...header, kid: 'kid-2' } }],
    ['no kid', { header: { alg: 'Ed25519' } }],
  ])('is refused with %s', async (_what, options) => {
    await expectRefused(`Bearer ${token(options)}`);
  });

  it.each([{ iss: 'other' }, { iss: undefined }, { aud: 'bunkms' }, { exp: 1 }, { jti: undefined }])(
    'is refused with the claims %j',
    async (changes) => {
      await expectRefused(`Bearer ${token({ header, payload: claims(changes) })}`);
    },
  );

  it('is refused when the published key is of another type', async () => {
    published.set(KID, pemOf(ec.publicKey));
    await expectRefused(`Bearer ${token({ header })}`);
  });
});

describe('the log', () => {
  it.each<[string, () => string | undefined]>([
    ['absent', () => undefined],
    ['absent', () => 'Basic YTpi'],
    ['malformed', () => 'Bearer x'],
    ['unknown signing key', () => `Bearer ${token({ header: { ...HEADER, kid: 'kid-2' } })}`],
    ['algorithm not allowed', () => `Bearer ${token({ header: { ...HEADER, alg: 'none' } })}`],
    ['bad signature', () => `Bearer ${token({ signer: (bytes) => sign(null, bytes, stranger.privateKey) })}`],
    ['wrong issuer', () => `Bearer ${token({ payload: claims({ iss: 'other' }) })}`],
    ['wrong audience', () => `Bearer ${token({ payload: claims({ aud: 'bunkms' }) })}`],
    ['claims missing or invalid', () => `Bearer ${token({ payload: claims({ jti: undefined }) })}`],
    ['expired', () => `Bearer ${token({ payload: claims({ exp: 1 }) })}`],
    ['not valid yet', () => `Bearer ${token({ payload: claims({ nbf: 9_999_999_999 }) })}`],
    [
      'revoked',
      () => {
        revoked.add(JTI);
        return `Bearer ${token()}`;
      },
    ],
  ])(
    'says why a token is refused, and contains nothing of the token: %s',
    async (tokenFault, authorization) => {
      let log = '';
      await using server = await build('bundoc', (line) => {
        log += line;
      });
      const header = authorization();
      const { body } = await ask(header, server);
      expect(body).toEqual(REFUSAL);
      await expect.poll(() => log).toContain('\n');
      expect(JSON.parse(log)).toMatchObject({ code: 'unauthenticated', status: 401, tokenFault });
      const [, secret = 'no token'] = header?.split(' ') ?? [];
      expect(log).not.toContain(secret === 'x' ? 'Bearer x' : secret);
    },
  );
});
