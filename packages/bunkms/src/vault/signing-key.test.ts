import { KeyObject, randomBytes, verify } from 'node:crypto';
import { inspect } from 'node:util';
import { SignJWT } from 'jose';
import { expect, it } from 'vitest';
import { pemOf, publicJwkOf, signingKeyOf } from './signing-key.ts';

it('the signing key is a KeyObject, which does not reveal its bytes when it is printed', () => {
  const seed = randomBytes(32);
  const key = signingKeyOf(seed);
  expect(key).toBeInstanceOf(KeyObject);
  expect([key.type, key.asymmetricKeyType]).toEqual(['private', 'ed25519']);
  for (const text of [inspect(key, { depth: null, showHidden: true }), JSON.stringify(key), String(key)])
    for (const encoding of ['hex', 'base64', 'base64url'] as const)
      expect(text).not.toContain(seed.toString(encoding));
});

it('tokens that the signing key signs verify with the published key', async () => {
  const key = signingKeyOf(randomBytes(32));
  const jwk = publicJwkOf(key);
  const token = await new SignJWT({ sub: 'a' }).setProtectedHeader({ alg: 'EdDSA', kid: jwk.kid }).sign(key);
  const [head, body, signature] = token.split('.') as [string, string, string];
  const signed = Buffer.from(`${head}.${body}`);
  expect(verify(null, signed, pemOf(jwk), Buffer.from(signature, 'base64url'))).toBe(true);
  expect(verify(null, Buffer.from(`${head}.${body}A`), pemOf(jwk), Buffer.from(signature, 'base64url'))).toBe(
    false,
  );
});
