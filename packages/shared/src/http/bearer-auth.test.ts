import { sign } from 'node:crypto';
import Fastify from 'fastify';
import { describe, expect, it } from 'vitest';
import { AppError } from '../contract/app-error.ts';
import type { Claims } from '../contract/tokens.ts';
import {
  ask,
  build,
  claims,
  clock,
  expectAccepted,
  expectRefused,
  failLookups,
  finds,
  HEADER,
  JTI,
  KID,
  published,
  refusalOf,
  revoked,
  stranger,
  token,
  useBearerAuth,
} from '../testing/bearer-tokens.ts';
import { BearerAuth } from './bearer-auth.ts';

useBearerAuth();

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

  it('may be issued slightly in the future by a clock that runs ahead', async () => {
    const iat = Math.floor(clock.now() / 1000) + 60;
    await expectAccepted(`Bearer ${token({ payload: claims({ iat }) })}`);
  });
});

describe('a key source that fails', () => {
  it('has its own refusal passed on, with its code and Retry-After', async () => {
    failLookups(new AppError('kms_unavailable', { retryAfterS: 7 }));
    const { status, body, headers } = await ask(`Bearer ${token()}`);
    expect(status).toBe(503);
    expect(body['code']).toBe('kms_unavailable');
    expect(headers['retry-after']).toBe('7');
  });

  it('answers 500 for a defect, not 401', async () => {
    failLookups(new TypeError('planted-secret'));
    const { status, body } = await ask(`Bearer ${token()}`);
    expect(status).toBe(500);
    expect(JSON.stringify(body)).not.toContain('planted');
  });

  it('does not affect cached tokens, and is asked again for others', async () => {
    const authorization = `Bearer ${token()}`;
    await expectAccepted(authorization);
    failLookups(new AppError('kms_unavailable'));
    await expectAccepted(authorization);
    const other = `Bearer ${token({ payload: claims({ sub: 'other' }) })}`;
    expect((await ask(other)).status).toBe(503);
    failLookups(undefined);
    expect((await ask(other)).status).toBe(200);
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
      expect(body).toEqual(refusalOf(header));
      await expect.poll(() => log).toContain('"msg":"request"');
      const lines = log
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line));
      const refusals = lines.filter(({ msg }) => msg === 'request');
      expect(refusals).toEqual([
        expect.objectContaining({ code: 'unauthenticated', status: 401, tokenFault }),
      ]);
      // Only a clock that is behind needs an operator.
      const others = lines.filter(({ msg }) => msg !== 'request').map(({ level }) => level);
      expect(others).toEqual(tokenFault === 'not valid yet' ? ['warn'] : []);
      const [, secret = 'no token'] = header?.split(' ') ?? [];
      expect(log).not.toContain(secret === 'x' ? 'Bearer x' : secret);
    },
  );
});
