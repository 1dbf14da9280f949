import assert from 'node:assert/strict';
import { hash, type KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { defined } from '@bundoc/shared/contract/defined';
import type { KeyInfo, KeyVersion } from '@bundoc/shared/contract/keys';
import type { Caller } from './caller.ts';
import { type AuditDraft, recordHash } from './chain.ts';

/** The offer of a key: the storage that may accept it, and the move of the offer. */
export interface KeyOffer {
  readonly to: string;
  readonly move: string;
  /** The generation of the holder that made it. When the holder advances, the offer is void. */
  readonly generation: string;
}

/** The outside key of a key: new versions open only with it as well. */
export interface KeyOutside {
  /** Of its entry in `BUNKMS_OUTSIDE_KEYS_FILE`. */
  readonly key: string;
  /** SHA-256 of its kind and real name, hex: an entry that names another key is noticed. */
  readonly identity: string;
  /** How long a holder may keep a released key, seconds. */
  readonly leaseTtlS: number;
}

/**
 * A stored key without its versions. The store does not validate it: the audit chain shows that it is genuine
 * and the latest.
 */
export interface KeyRecord {
  readonly id: string;
  readonly name: string;
  readonly type: KeyInfo['type'];
  readonly state: KeyInfo['state'];
  /** The current version. */
  readonly version: number;
  /** 1 for a new key; increases by one with each change. */
  readonly revision: number;
  readonly exportable: boolean;
  readonly rotateAfterDays: number | null;
  /** When the service must act: rotate an enabled key, or destroy one that is pending deletion. */
  readonly dueAt: string | null;
  readonly createdAt: string;
  readonly destroyedAt: string | null;
  /** Every KEK that ever wrapped a copy of a version, by id, in the order of first use. */
  readonly kekIds: readonly string[];
  /** Hashes of the idempotency key and the request that created the key; null without an idempotency key. */
  readonly idempotency: { readonly key: string; readonly request: string } | null;
  /** The concatenated digests of the versions 1, 2, …, 32 bytes each. */
  readonly versionDigests: Uint8Array;
  /** The storage that holds the key, or `HOLDER_UNKNOWN`; null without a holder. */
  readonly holder: string | null;
  /** The offer of its holder, if any. */
  readonly offer: KeyOffer | null;
  /** When its holder recorded a deletion intent. */
  readonly intendedAt: string | null;
  /** The outside key that it is attached to. */
  readonly outside: KeyOutside | null;
}

/** A stored version of a key. */
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

/** What the store has for a key name, from one snapshot. It must be authenticated before use. */
export interface StoredKey {
  /** Undefined when it is lost. */
  readonly record: KeyRecord | undefined;
  /** The requested versions that have records, in ascending order. */
  readonly versions: readonly KeyVersionRecord[];
  /** The latest audit record with that key name and a `revision` in its `detail`. */
  readonly lastChange: AuditRecord | undefined;
}

/** A stored key of a list. */
export interface NamedKey extends StoredKey {
  readonly name: string;
}

/**
 * The authentication of stored keys (`docs/formats/key-record.md`). The audit record of each change contains
 * the digest of the resulting key, and the key contains the digests of its versions. The chain is keyed, and
 * the latest record determines the row. So an attacker who can write to the database can neither forge a
 * record nor present an older row as current.
 */

/** Bytes of one digest (SHA-256). */
export const DIGEST_BYTES = 32;

/** Digest of a key without its versions, hex. */
export function digestOfKey(record: KeyRecord): string {
  const fields = [
    'bunkms/key/v3',
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
    record.outside === null ? null : [record.outside.key, record.outside.identity, record.outside.leaseTtlS],
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

/** The digests of a key, updated for `versions`. A new version must be the next one. */
export function withDigests(digests: Uint8Array, versions: readonly KeyVersionRecord[]): Uint8Array {
  const count = Math.max(digests.length / DIGEST_BYTES, ...versions.map(({ version }) => version));
  const next = new Uint8Array(count * DIGEST_BYTES);
  next.set(digests);
  for (const version of versions) next.set(digestOfVersion(version), digestOffset(version.version));
  return next;
}

/** Changes that end a key or determine its holder. */
const CRITICAL_CHANGES: readonly string[] = [
  'key.destroy',
  'key.destroy_version',
  'key.claim',
  'key.accept',
  'key.take_over',
  'key.deletion_intent',
  'key.content_removed',
  'key.attach',
  'key.detach',
];

/** The audit record of a change of a key. It authenticates the new state. */
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
    ...defined({ version: more.version }),
    detail: {
      key_id: record.id,
      ...more.detail,
      revision: record.revision,
      record: digestOfKey(record),
    },
  };
}

/** Faults of a stored key, for the operator's log. */
export type KeyFault =
  | 'lost'
  | 'not in the audit chain'
  | 'its audit record was changed'
  | 'changed or rolled back';

/** Why a stored key must not be used; undefined when it matches the latest change of that name. */
export function keyFault(chainKey: KeyObject, name: string, stored: StoredKey): KeyFault | undefined {
  const { record, lastChange } = stored;
  if (lastChange === undefined) return 'not in the audit chain';
  if (record === undefined) return 'lost';
  const { seq, prev_hash: previous } = lastChange;
  if (recordHash(chainKey, previous, seq, lastChange) !== lastChange.hash)
    return 'its audit record was changed';
  const isLatest =
    record.name === name && lastChange.key === name && lastChange.detail?.['record'] === digestOfKey(record);
  return isLatest ? undefined : 'changed or rolled back';
}

/** Whether `version` matches its digest in the key, which must be authenticated already. */
export function isGenuineVersion(record: KeyRecord, version: KeyVersionRecord): boolean {
  assert(version.version >= 1);
  const at = digestOffset(version.version);
  return digestOfVersion(version).equals(record.versionDigests.subarray(at, at + DIGEST_BYTES));
}

function digestOffset(version: number): number {
  return (version - 1) * DIGEST_BYTES;
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}
