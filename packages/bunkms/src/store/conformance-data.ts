/** Well-formed things to put into a store; their secrets are noise, since a store cannot tell. */
import { createSecretKey, randomBytes, randomUUID } from 'node:crypto';
import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import type { AuditDraft } from '../audit/chain.ts';
import type { Installation, KeyRecord, NewKeyVersion } from './port.ts';

export const TIME = '2026-01-01T00:00:00.000Z';
export const chainKey = createSecretKey(randomBytes(32));

export function draft(action: string, more: Partial<AuditDraft> = {}): AuditDraft {
  return { time: TIME, severity: 'INFO', action, outcome: 'allowed', ...more };
}

export function installation(mark: number): Installation {
  return {
    createdAt: TIME,
    chainKeyWrapped: new Uint8Array(69).fill(mark),
    signingSeedWrapped: new Uint8Array(69).fill(mark + 1),
    signingKey: {
      kty: 'OKP',
      crv: 'Ed25519',
      use: 'sig',
      alg: 'EdDSA',
      kid: `kid${mark}`,
      x: 'x'.repeat(43),
    },
    keks: [{ id: '0011223344556677', checkValue: 'ab' }],
  };
}

export function key(name: string): KeyRecord {
  return {
    info: {
      id: randomUUID(),
      name,
      type: 'aes-256',
      state: 'enabled',
      version: 1,
      kcv: '00'.repeat(16),
      created_at: TIME,
    },
    wrapped: new Uint8Array(randomBytes(69)),
  };
}

export const LATER = '2026-02-02T00:00:00.000Z';

export function keyVersion({ info }: KeyRecord, version: number): NewKeyVersion {
  return {
    keyId: info.id,
    version,
    kcv: randomBytes(16).toString('hex'),
    wrapped: new Uint8Array(randomBytes(69)),
    createdAt: LATER,
  };
}

export function token(family?: string): TokenInfo {
  const jti = randomUUID();
  return {
    jti,
    family: family ?? jti,
    sub: 'bundoc',
    typ: 'service',
    aud: 'bunkms',
    scope: ['kms:read_key', 'kms:export_key'],
    keys: ['*-dek'],
    projects: [],
    issued_at: TIME,
    expires_at: '2026-02-01T00:00:00.000Z',
  };
}
