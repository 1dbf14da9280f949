/** Well-formed things to put into a store; their secrets are noise, since a store cannot tell. */
import { createSecretKey, randomBytes, randomUUID } from 'node:crypto';
import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import type { AuditDraft } from '../audit/chain.ts';
import { keyChangeDraft, withDigests } from '../audit/key-record.ts';
import type { Installation, KeyChange, KeyRecord, KeyVersionRecord } from './port.ts';

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

/** The making of a key. */
export function key(name: string, more: Partial<KeyRecord> = {}): KeyChange {
  const id = randomUUID();
  const first = version(id, 1, TIME);
  const record: KeyRecord = {
    id,
    name,
    type: 'aes-256',
    state: 'enabled',
    version: 1,
    revision: 1,
    exportable: true,
    rotateAfterDays: null,
    dueAt: null,
    createdAt: TIME,
    destroyedAt: null,
    kekIds: ['0011223344556677'],
    idempotency: null,
    versionDigests: withDigests(new Uint8Array(), [first]),
    ...more,
  };
  return changed(record, [first], 'key.create');
}

export const LATER = '2026-02-02T00:00:00.000Z';

/** The next version of a key, with the change that adds it. */
export function rotated({ record }: KeyChange): KeyChange {
  const added = version(record.id, record.version + 1, LATER);
  const versionDigests = withDigests(record.versionDigests, [added]);
  const { version: number } = added;
  return changed(
    { ...record, version: number, revision: record.revision + 1, versionDigests },
    [added],
    'key.rotate',
  );
}

/** Another state of a key, with the change that brings it there. */
export function edited({ record }: KeyChange, more: Partial<KeyRecord>): KeyChange {
  return changed({ ...record, ...more, revision: record.revision + 1 }, [], 'key.update');
}

function changed(record: KeyRecord, versions: readonly KeyVersionRecord[], action: string): KeyChange {
  return { record, versions, audit: keyChangeDraft({ caller: {}, time: TIME, action }, record) };
}

function version(keyId: string, number: number, createdAt: string): KeyVersionRecord {
  return {
    keyId,
    version: number,
    kcv: randomBytes(16).toString('hex'),
    state: 'available',
    createdAt,
    destroyedAt: null,
    wrapped: new Uint8Array(randomBytes(69)),
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
