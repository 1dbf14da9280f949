/** Well-formed test data for a store. The secrets are random, because a store does not open them. */
import { createSecretKey, randomBytes, randomUUID } from 'node:crypto';
import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import type { AuditDraft } from '../../records/chain.ts';
import type { Installation } from '../../records/installation.ts';
import {
  type KeyRecord,
  type KeyVersionRecord,
  keyChangeDraft,
  withDigests,
} from '../../records/key-record.ts';
import { revocationDraft, tokenIssueDraft } from '../../records/token-record.ts';
import type { KeyChange, KeyUpdate } from '../keys.ts';

export const TIME = '2026-01-01T00:00:00.000Z';
export const chainKey = createSecretKey(randomBytes(32));

/** The KEK of the installation, and another one. */
export const KEK = '0011223344556677';
export const OTHER_KEK = '8899aabbccddeeff';

/** Bytes in the form of a key wrapped with this KEK. */
function wrappedWith(kekId: string): Uint8Array {
  return new Uint8Array(Buffer.concat([Buffer.of(1), Buffer.from(kekId, 'hex'), randomBytes(60)]));
}

/** {@link wrappedWith}, but with the same bytes for the same `mark`. */
export function secretWith(kekId: string, mark: number): Uint8Array {
  return wrappedWith(kekId).fill(mark, 9);
}

/** The record of the creation of an installation. */
export function made(): AuditDraft {
  return draft('vault.initialised', { detail: { kek_id: KEK } });
}

export function draft(action: string, more: Partial<AuditDraft> = {}): AuditDraft {
  return { time: TIME, severity: 'INFO', action, outcome: 'allowed', ...more };
}

export function installation(mark: number): Installation {
  return {
    createdAt: TIME,
    chainKeyWrapped: secretWith(KEK, mark),
    signingSeedWrapped: secretWith(KEK, mark + 1),
    signingKey: {
      kty: 'OKP',
      crv: 'Ed25519',
      use: 'sig',
      alg: 'EdDSA',
      kid: `kid${mark}`,
      x: 'x'.repeat(43),
    },
    keks: [{ id: KEK, checkValue: 'ab' }],
  };
}

/** The creation of a key. */
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
    kekIds: [KEK],
    idempotency: null,
    versionDigests: withDigests(new Uint8Array(), [first]),
    holder: null,
    offer: null,
    intendedAt: null,
    outside: null,
    ...more,
  };
  return changed(record, [first], 'key.create');
}

export const LATER = '2026-02-02T00:00:00.000Z';

/** The next version of a key, with the change that adds it. */
export function rotated({ record }: KeyChange): KeyUpdate {
  const added = version(record.id, record.version + 1, LATER);
  const versionDigests = withDigests(record.versionDigests, [added]);
  const { version: number } = added;
  const next = { ...record, version: number, revision: record.revision + 1, versionDigests };
  return { ...changed(next, [added], 'key.rotate'), previous: record };
}

/** The same revision of a key, with some of its versions wrapped with another KEK. */
export function rewrapped(
  { record }: KeyChange,
  versions: readonly KeyVersionRecord[],
  kekId: string,
): KeyUpdate {
  const renewed = versions.map((one) => ({ ...one, wrapped: wrappedWith(kekId) }));
  const versionDigests = withDigests(record.versionDigests, renewed);
  return { ...changed({ ...record, versionDigests }, renewed, 'kek.rewrap'), previous: record };
}

/** Another state of a key, with the change that leads to it. */
export function edited({ record }: KeyChange, more: Partial<KeyRecord>): KeyUpdate {
  const next = { ...record, ...more, revision: record.revision + 1 };
  return { ...changed(next, [], 'key.update'), previous: record };
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
    wrapped: wrappedWith(KEK),
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

/** The record of a token's issue. */
export function issueOf(one: TokenInfo, action: 'token.issue' | 'token.renew' = 'token.issue'): AuditDraft {
  return tokenIssueDraft({ caller: {}, time: TIME, action }, one);
}

/** The record that revokes a token and its family. */
export function revocationOf(one: TokenInfo, time = TIME): AuditDraft {
  return revocationDraft({}, time, one);
}

/** The key that a store returns right after that change. */
export function stored({ record, versions, audit }: KeyChange) {
  return { record, versions, lastChange: audit };
}
