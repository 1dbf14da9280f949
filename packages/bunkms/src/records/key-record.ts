import assert from 'node:assert/strict';
import { hash, type KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { KeyInfo, KeyVersion } from '@bundoc/shared/contract/keys';
import type { Caller } from './caller.ts';
import { type AuditDraft, recordHash } from './chain.ts';

/** The offer of a key: the storage that may accept it, and the move that the offer is a part of. */
export interface KeyOffer {
  readonly to: string;
  readonly move: string;
  /** Of the holder that made it: when the holder advances, the offer is void. */
  readonly generation: string;
}

/**
 * A key as it is stored, without its versions. The store keeps it as it is given and judges nothing of it:
 * that it is genuine and the latest is shown by the audit chain (`records/key-record.ts`).
 */
export interface KeyRecord {
  readonly id: string;
  readonly name: string;
  readonly type: KeyInfo['type'];
  readonly state: KeyInfo['state'];
  /** The current version. */
  readonly version: number;
  /** 1 when the key is made, and one more with each change. */
  readonly revision: number;
  readonly exportable: boolean;
  readonly rotateAfterDays: number | null;
  /**
   * When the service has to do something by itself: rotate an enabled key, destroy one that is pending
   * deletion.
   */
  readonly dueAt: string | null;
  readonly createdAt: string;
  readonly destroyedAt: string | null;
  /** Every KEK that ever wrapped a copy of a version, by id, in the order of first use. */
  readonly kekIds: readonly string[];
  /**
   * Of the create that made the key, if it came with an idempotency key: hashes of that key and of the
   * request.
   */
  readonly idempotency: { readonly key: string; readonly request: string } | null;
  /** Digests of the versions 1, 2, … behind each other, 32 bytes each. */
  readonly versionDigests: Uint8Array;
  /** The storage that holds the key, or `HOLDER_UNKNOWN`; null when nobody does. */
  readonly holder: string | null;
  /** To whom its holder hands it over, and in which move. */
  readonly offer: KeyOffer | null;
  /** Since when its holder wants it shredded. */
  readonly intendedAt: string | null;
}

/** One version of a key as it is stored. */
export interface KeyVersionRecord {
  readonly keyId: string;
  readonly version: number;
  readonly kcv: string;
  readonly state: KeyVersion['state'];
  readonly createdAt: string;
  readonly destroyedAt: string | null;
  /** The wrapped DEK; no bytes once the version is destroyed. */
  readonly wrapped: Uint8Array;
}

/** What the store has on a key name, all of one moment. Not to be trusted before it is authenticated. */
export interface StoredKey {
  /** Undefined when it is lost. */
  readonly record: KeyRecord | undefined;
  /** The versions asked for that there are records of, in ascending order. */
  readonly versions: readonly KeyVersionRecord[];
  /** The latest audit record of that key name whose `detail` has a `revision`. */
  readonly lastChange: AuditRecord | undefined;
}

/** A stored key of a list. */
export interface NamedKey extends StoredKey {
  readonly name: string;
}

/**
 * How a stored key is authenticated (`docs/formats/key-record.md`): the audit record of each change carries
 * the digest of the key as it is since, and the key carries the digests of its versions. The chain is keyed,
 * so anyone who can write to the database can neither make a record for a row of theirs, nor pass off an
 * older row as the present one: the latest record says what the row is.
 */

/** Bytes of one digest (SHA-256). */
export const DIGEST_BYTES = 32;

/** Digest of a key without its versions, hex. */
export function digestOfKey(record: KeyRecord): string {
  const fields = [
    'bunkms/key/v2',
    record.id,
    record.name,
    record.type,
    record.state,
    record.version,
    record.revision,
    record.exportable,
    record.rotateAfterDays,
    record.dueAt,
    record.createdAt,
    record.destroyedAt,
    record.kekIds,
    record.idempotency === null ? null : [record.idempotency.key, record.idempotency.request],
    hexOf(record.versionDigests),
    record.holder,
    record.offer === null ? null : [record.offer.to, record.offer.move, record.offer.generation],
    record.intendedAt,
  ];
  return hash('sha256', JSON.stringify(fields), 'hex');
}

/** Digest of one version of a key. */
export function digestOfVersion(version: KeyVersionRecord): Buffer {
  const fields = [
    'bunkms/key-version/v1',
    version.keyId,
    version.version,
    version.kcv,
    version.state,
    version.createdAt,
    version.destroyedAt,
    hexOf(version.wrapped),
  ];
  return hash('sha256', JSON.stringify(fields), 'buffer');
}

/** The digests of a key with those of `versions` put in their places. A new version must be the next one. */
export function withDigests(digests: Uint8Array, versions: readonly KeyVersionRecord[]): Uint8Array {
  const count = Math.max(digests.length / DIGEST_BYTES, ...versions.map(({ version }) => version));
  const next = new Uint8Array(count * DIGEST_BYTES);
  next.set(digests);
  for (const version of versions) next.set(digestOfVersion(version), placeOf(version.version));
  return next;
}

/** Changes that end a key, or say who holds it. */
const CRITICAL_CHANGES: readonly string[] = [
  'key.destroy',
  'key.destroy_version',
  'key.claim',
  'key.accept',
  'key.take_over',
  'key.deletion_intent',
  'key.content_removed',
];

/** The audit record of a change of a key, which authenticates what the key is from then on. */
export function keyChangeDraft(
  { caller, time, action }: { readonly caller: Caller; readonly time: string; readonly action: string },
  record: KeyRecord,
  more: { readonly version?: number; readonly detail?: NonNullable<AuditDraft['detail']> } = {},
): AuditDraft {
  return {
    ...caller,
    time,
    severity: CRITICAL_CHANGES.includes(action) ? 'CRITICAL' : 'INFO',
    action,
    outcome: 'allowed',
    key: record.name,
    ...(more.version === undefined ? {} : { version: more.version }),
    detail: {
      key_id: record.id,
      ...more.detail,
      revision: record.revision,
      record: digestOfKey(record),
    },
  };
}

/** What may be wrong with a stored key, for the operator's log. */
export type KeyFault =
  | 'lost'
  | 'not in the audit chain'
  | 'its audit record was changed'
  | 'changed or put back';

/** Why a stored key must not be obeyed; undefined when it is what the latest change of that name made it. */
export function keyFault(chainKey: KeyObject, name: string, stored: StoredKey): KeyFault | undefined {
  const { record, lastChange } = stored;
  if (lastChange === undefined) return 'not in the audit chain';
  if (record === undefined) return 'lost';
  const { seq, prev_hash: previous } = lastChange;
  if (recordHash(chainKey, previous, seq, lastChange) !== lastChange.hash)
    return 'its audit record was changed';
  const isLatest =
    record.name === name && lastChange.key === name && lastChange.detail?.['record'] === digestOfKey(record);
  return isLatest ? undefined : 'changed or put back';
}

/** Tells whether `version` is what the key, itself authenticated, says of it. */
export function isGenuineVersion(record: KeyRecord, version: KeyVersionRecord): boolean {
  assert(version.version >= 1);
  const at = placeOf(version.version);
  return digestOfVersion(version).equals(record.versionDigests.subarray(at, at + DIGEST_BYTES));
}

function placeOf(version: number): number {
  return (version - 1) * DIGEST_BYTES;
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}
