import { createPublicKey, sign, verify } from 'node:crypto';
import { createRequire } from 'node:module';
import { describe, expect, it } from 'vitest';
import {
  expectRefused,
  issuer,
  KID,
  pemOf,
  published,
  token,
  useBearerAuth,
} from '../testing/bearer-tokens.ts';
import { needs } from '../testing/programs.ts';
import { loadWycheproof, unhex } from '../testing/wycheproof.ts';

useBearerAuth();

interface JwsGroup {
  readonly public?: JsonWebKey & { readonly kid?: string };
  readonly private?: JsonWebKey & { readonly kid?: string };
}

type JsonWebKey = Readonly<Record<string, unknown>>;

const jws = loadWycheproof<JwsGroup, { readonly jws: unknown }>('json_web_signature_test.json');

describe('JSON Web Signatures, published vectors', needs('vectors'), () => {
  it('are all refused, valid or not, under their own keys: none is an EdDSA token', async () => {
    let refused = 0;
    let notText = 0;
    for (const group of jws) {
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

describe('Ed25519, published vectors', needs('vectors'), () => {
  type VerifySignature = (alg: string, pem: Buffer, input: Buffer, signature: string) => boolean;
  const jwt = createRequire(createRequire(import.meta.url).resolve('@fastify/jwt'));
  const { verifySignature } = jwt('fast-jwt/src/crypto.js') as { verifySignature: VerifySignature };

  it('get the right verdict from the signature check of the token plugin, in the encoding of tokens', () => {
    let accepted = 0;
    let refused = 0;
    for (const group of eddsa) {
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
    for (const group of eddsa) {
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
