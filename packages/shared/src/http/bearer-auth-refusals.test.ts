import { createHmac, sign } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import {
  claims,
  clock,
  ec,
  expectRefused,
  finds,
  HEADER,
  issuer,
  KID,
  pemOf,
  published,
  rsa,
  stranger,
  token,
  useBearerAuth,
} from '../testing/bearer-tokens.ts';

useBearerAuth();

describe('every refused token gets the same 401, and a request without one gets the form of the header', () => {
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
    ['alg Ed25519', () => `Bearer ${token({ header: { ...HEADER, alg: 'Ed25519' } })}`],
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

  it('is sent without a look-up of a key when the header cannot name one', async () => {
    await expectRefused(`Bearer ${token({ header: { ...HEADER, kid: 'k'.repeat(65) } })}`);
    await expectRefused('Bearer a.b.c');
    expect(finds).toEqual([]);
  });
});
