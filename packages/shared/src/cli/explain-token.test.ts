import { generateKeyPairSync, sign } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { Jwks } from '../contract/tokens.ts';
import { scopeSchema } from '../contract/tokens.ts';
import { explainToken, inspectToken, NotAToken } from './explain-token.ts';

const { privateKey, publicKey } = generateKeyPairSync('ed25519');
const KEYS: Jwks = {
  keys: [
    {
      kty: 'OKP',
      crv: 'Ed25519',
      use: 'sig',
      alg: 'EdDSA',
      kid: 'k1',
      x: String(publicKey.export({ format: 'jwk' }).x),
    },
  ],
};
const NOW_S = 1_795_800_000;
const CLAIMS = {
  iss: 'bunkms',
  aud: 'bunkms',
  sub: 'shop',
  typ: 'service',
  scope: 'kms:issue_client',
  projects: [],
  keys: [],
  jti: '0b6f4a0e-6b0c-4b8e-9a53-3c1d2f7e8a90',
  iat: NOW_S - 60,
  exp: NOW_S + 840,
  may_issue: { scopes: ['docs:read'], projects: ['project-a'], keys: [], ttl_s: 900 },
};
const iso = (seconds: number) => new Date(seconds * 1_000).toISOString().replace('.000', '');
const base64url = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url');
function tokenOf(claims: object, kid = 'k1'): string {
  const input = `${base64url({ alg: 'EdDSA', typ: 'JWT', kid })}.${base64url(claims)}`;
  return `${input}.${sign(null, Buffer.from(input), privateKey).toString('base64url')}`;
}

describe('an explained token', () => {
  it('says who holds it, what it may do, for which projects, and until when', () => {
    const lines = explainToken(inspectToken(tokenOf(CLAIMS)), NOW_S * 1_000);
    expect(lines).toEqual([
      'for        shop, a service',
      'at         BunKMS',
      'may        kms:issue_client: issue client tokens for an application',
      'projects   none',
      'keys       none',
      'issues     tokens with docs:read, for projects project-a, of at most 15 minutes',
      `issued     ${iso(CLAIMS.iat)} (1 minute ago)`,
      `until      ${iso(CLAIMS.exp)} (in 14 minutes)`,
      'id         0b6f4a0e-6b0c-4b8e-9a53-3c1d2f7e8a90',
      'signature  not checked: give the keys with --jwks',
    ]);
  });

  it('is also explained when it has expired, or has claims unknown to this version', () => {
    const lines = explainToken(
      inspectToken(
        tokenOf({
          ...CLAIMS,
          aud: 'bundoc',
          scope: 'docs:read docs:new',
          projects: ['*'],
          exp: NOW_S - 7_200,
        }),
      ),
      NOW_S * 1_000,
    ).join('\n');
    expect(lines).toContain('docs:read: read documents, run queries and follow changes');
    expect(lines).toContain('docs:new: not known to this version');
    expect(lines).toContain('projects   all');
    expect(lines).toMatch(/^expired .*2 hours ago/m);
  });

  it('has words for every scope', () => {
    for (const scope of scopeSchema.options)
      expect(explainToken(inspectToken(tokenOf({ ...CLAIMS, scope })), 0).join('\n')).not.toContain(
        'not known',
      );
  });

  it('has its signature checked with the given keys, and with no other', () => {
    const token = tokenOf(CLAIMS);
    expect(inspectToken(token).signature).toBe('not checked');
    expect(inspectToken(` Bearer ${token}\n`, KEYS).signature).toBe('good');
    const [head, , signature] = token.split('.');
    const forged = [head, base64url({ ...CLAIMS, sub: 'admin' }), signature].join('.');
    expect(inspectToken(forged, KEYS).signature).toBe('bad');
    expect(inspectToken(tokenOf(CLAIMS, 'k2'), KEYS).signature).toBe('of an unknown key');
  });

  it.each([
    ['', 'there is no token'],
    ['abc', 'three parts'],
    ['a.b.c', 'is not JSON'],
    [tokenOf({ ...CLAIMS, iss: 'others' }), 'no token of BunKMS: iss'],
    [`${'a'.repeat(13_000)}.b.c`, 'at most 12288 characters'],
  ])('is refused with the reason when it is not a token: %.20s', (text, reason) => {
    expect(() => inspectToken(text)).toThrow(NotAToken);
    expect(() => inspectToken(text)).toThrow(reason);
  });
});
