import { createHash, createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import type { PublicJwk } from '../records/installation.ts';

/** PKCS #8 around a raw Ed25519 seed (RFC 8410, section 7), which is all that a private key consists of. */
const PKCS8_PREFIX = Buffer.from('302e020100300506032b657004220420', 'hex');
const KID_CHARACTERS = 16;

/** The private key from a 32-byte Ed25519 seed. The caller wipes the seed. */
export function signingKeyOf(seed: Uint8Array): KeyObject {
  const der = Buffer.concat([PKCS8_PREFIX, seed]);
  try {
    return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  } finally {
    der.fill(0);
  }
}

/**
 * The public key as a JWK. Its `kid` is the beginning of its thumbprint (RFC 7638), so it identifies exactly
 * this key.
 */
export function publicJwkOf(signingKey: KeyObject): PublicJwk {
  const x = String(createPublicKey(signingKey).export({ format: 'jwk' }).x);
  const thumbprint = createHash('sha256')
    .update(JSON.stringify({ crv: 'Ed25519', kty: 'OKP', x }))
    .digest('base64url');
  return {
    kty: 'OKP',
    crv: 'Ed25519',
    use: 'sig',
    alg: 'EdDSA',
    kid: thumbprint.slice(0, KID_CHARACTERS),
    x,
  };
}

/** A public JWK as PEM (SPKI), the format of the token library. */
export function pemOf(jwk: PublicJwk): string {
  const key = createPublicKey({ key: { kty: jwk.kty, crv: jwk.crv, x: jwk.x }, format: 'jwk' });
  return String(key.export({ type: 'spki', format: 'pem' }));
}
