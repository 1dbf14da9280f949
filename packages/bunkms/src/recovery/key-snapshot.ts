import type { AuditRecord } from '@bundoc/shared/contract/audit';
import {
  HOLDER_UNKNOWN,
  keyStateSchema,
  leaseTtlSchema,
  outsideNameSchema,
} from '@bundoc/shared/contract/keys';
import { z } from 'zod';
import { outsideDetail } from '../records/key-outside.ts';
import type { KeyRecord, KeyVersionRecord } from '../records/key-record.ts';

export const holderSchema = z.union([z.uuid(), z.literal(HOLDER_UNKNOWN)]);
export const offerSchema = z.strictObject({ to: z.uuid(), move: z.uuid(), generation: z.uuid() });

/** As it is in a backup. */
export const outsideSchema = z.strictObject({
  key: outsideNameSchema,
  identity: z.string().regex(/^[0-9a-f]{64}$/),
  leaseTtlS: leaseTtlSchema,
});

/** The state of a key: all its facts except the key material, and without what only its row has. */
export interface KeySnapshot extends Omit<KeyRecord, 'dueAt' | 'idempotency' | 'versionDigests'> {
  /** Versions that were destroyed individually, ascending; not those that were destroyed with their key. */
  readonly destroyedVersions: readonly number[];
  /** When a key that is pending deletion is destroyed. */
  readonly deletionAt: string | null;
}

/** @param versions the genuine ones. */
export function snapshotOf(record: KeyRecord, versions: readonly KeyVersionRecord[]): KeySnapshot {
  const { dueAt, idempotency: _, versionDigests: __, ...facts } = record;
  const gone = record.state === 'destroyed' ? [] : versions.filter(({ state }) => state === 'destroyed');
  return {
    ...facts,
    destroyedVersions: gone.map(({ version }) => version),
    deletionAt: record.state === 'pending_deletion' ? dueAt : null,
  };
}

/**
 * The state of a key after a change in the audit chain. Facts that are not in the record do not change.
 *
 * @param snapshot undefined for an unknown key. Then only the record of its creation or recovery gives its
 *   state.
 */
export function afterChange(snapshot: KeySnapshot | undefined, record: AuditRecord): KeySnapshot | undefined {
  const { action, outcome, detail = {} } = record;
  // A restore of a key with a damaged record and an unknown later state.
  if (action === 'key.recover' && outcome === 'failed') return snapshot && forceDisabled(snapshot);
  if (outcome !== 'allowed') return snapshot;
  const made = snapshot ?? (action === 'key.create' || action === 'key.recover' ? asMade(record) : undefined);
  if (made === undefined) return undefined;
  const { revision } = detail;
  const changed = { ...made, ...effectOf(made, record) };
  return typeof revision === 'number' ? { ...changed, revision } : changed;
}

/** The key as disabled, with an unknown holder. A destroyed key stays destroyed. */
export function forceDisabled(snapshot: KeySnapshot): KeySnapshot {
  if (snapshot.state === 'destroyed') return snapshot;
  return {
    ...snapshot,
    state: 'disabled',
    deletionAt: null,
    holder: HOLDER_UNKNOWN,
    offer: null,
    intendedAt: null,
  };
}

function asMade({ key, time, detail = {} }: AuditRecord): KeySnapshot | undefined {
  const { key_id: id, exportable, rotate_after_days: days } = detail;
  if (key === undefined || typeof id !== 'string') return undefined;
  return {
    ...newSnapshot(key, id, time),
    exportable: exportable !== false,
    rotateAfterDays: typeof days === 'number' ? days : null,
    holder: holderOr(detail['holder'], null),
    outside: outsideIn(detail),
  };
}

/** A key that has just been made, in its first version. Nobody holds it. */
export function newSnapshot(name: string, id: string, createdAt: string): KeySnapshot {
  return {
    name,
    id,
    type: 'aes-256',
    state: 'enabled',
    version: 1,
    destroyedVersions: [],
    revision: 0,
    exportable: true,
    rotateAfterDays: null,
    deletionAt: null,
    createdAt,
    destroyedAt: null,
    kekIds: [],
    holder: null,
    offer: null,
    intendedAt: null,
    outside: null,
  };
}

function effectOf(
  before: KeySnapshot,
  { action, time, version, detail = {} }: AuditRecord,
): Partial<KeySnapshot> {
  switch (action) {
    case 'key.rotate':
      return { version: version ?? before.version };
    case 'key.enable':
      return { state: 'enabled', deletionAt: null };
    case 'key.disable':
      return { state: 'disabled', deletionAt: null };
    case 'key.restore':
      return { state: 'disabled', deletionAt: null, intendedAt: null };
    case 'key.claim':
    case 'key.accept':
    case 'key.take_over':
      return { holder: holderOr(detail['holder'], HOLDER_UNKNOWN), offer: null };
    case 'key.offer':
      return { offer: offerIn(detail) };
    case 'key.withdraw':
      return { offer: null };
    case 'key.deletion_intent':
      return {
        state: 'pending_deletion',
        deletionAt: textOr(detail['deletion_at'], null),
        offer: null,
        intendedAt: textOr(detail['intended_at'], time),
      };
    case 'key.content_removed':
      return { holder: null };
    case 'key.attach':
    case 'key.detach':
      return { version: version ?? before.version, outside: outsideIn(detail) };
    case 'key.schedule_deletion':
      return { state: 'pending_deletion', deletionAt: textOr(detail['deletion_at'], null) };
    case 'key.destroy':
      return {
        state: 'destroyed',
        destroyedVersions: [],
        deletionAt: null,
        destroyedAt: time,
        kekIds: wordsOf(detail['kek_ids']),
      };
    case 'key.destroy_version':
      return version === undefined
        ? {}
        : { destroyedVersions: withNumber(before.destroyedVersions, version) };
    case 'key.update':
      return policiesOf(detail);
    case 'kek.rewrap':
    case 'key.rewrap':
      return { kekIds: withWord(before.kekIds, detail['kek_id']) };
    case 'key.recover':
      return recoveredOf(before, detail, version);
    default:
      return {};
  }
}

function withWord(words: readonly string[], word: unknown): readonly string[] {
  return typeof word !== 'string' || words.includes(word) ? words : [...words, word];
}

/** A record of `key.recover` contains the complete state, because the previous state may be unknown. */
function recoveredOf(
  before: KeySnapshot,
  detail: NonNullable<AuditRecord['detail']>,
  version: number | undefined,
): Partial<KeySnapshot> {
  const state = keyStateSchema.safeParse(detail['state']).data ?? before.state;
  return {
    ...policiesOf(detail),
    state,
    id: textOr(detail['key_id'], before.id),
    version: version ?? before.version,
    destroyedVersions:
      state === 'destroyed'
        ? []
        : wordsOf(detail['destroyed_versions']).map(Number).reduce(withNumber, before.destroyedVersions),
    deletionAt: textOr(detail['deletion_at'], null),
    destroyedAt: textOr(detail['destroyed_at'], null),
    createdAt: textOr(detail['created_at'], before.createdAt),
    kekIds: wordsOf(detail['kek_ids']),
    holder: holderOr(detail['holder'], null),
    offer: offerIn(detail),
    intendedAt: textOr(detail['intended_at'], null),
    outside: outsideIn(detail),
  };
}

function holderOr<T>(value: unknown, otherwise: T): string | T {
  return holderSchema.safeParse(value).data ?? otherwise;
}

function offerIn({
  offered_to: to,
  move,
  generation,
}: NonNullable<AuditRecord['detail']>): KeySnapshot['offer'] {
  return offerSchema.safeParse({ to, move, generation }).data ?? null;
}

function outsideIn({
  outside: key,
  outside_identity: identity,
  lease_ttl_s: leaseTtlS,
}: NonNullable<AuditRecord['detail']>): KeySnapshot['outside'] {
  return outsideSchema.safeParse({ key, identity, leaseTtlS }).data ?? null;
}

function offerDetail({ to, move, generation }: NonNullable<KeySnapshot['offer']>) {
  return { offered_to: to, move, generation };
}

/** A {@link KeySnapshot} as the detail of an audit record, which has `key` and `version` as other members. */
export function detailOfSnapshot(snapshot: KeySnapshot): NonNullable<AuditRecord['detail']> {
  return {
    state: snapshot.state,
    exportable: snapshot.exportable,
    rotate_after_days: snapshot.rotateAfterDays ?? 'never',
    destroyed_versions: snapshot.destroyedVersions.join(','),
    created_at: snapshot.createdAt,
    ...(snapshot.deletionAt === null ? {} : { deletion_at: snapshot.deletionAt }),
    ...(snapshot.destroyedAt === null ? {} : { destroyed_at: snapshot.destroyedAt }),
    kek_ids: snapshot.kekIds.join(','),
    ...(snapshot.holder === null ? {} : { holder: snapshot.holder }),
    ...(snapshot.offer === null ? {} : offerDetail(snapshot.offer)),
    ...(snapshot.intendedAt === null ? {} : { intended_at: snapshot.intendedAt }),
    ...(snapshot.outside === null ? {} : outsideDetail(snapshot.outside)),
  };
}

function policiesOf(detail: NonNullable<AuditRecord['detail']>): Partial<KeySnapshot> {
  const { exportable, rotate_after_days: days } = detail;
  return {
    ...(typeof exportable === 'boolean' ? { exportable } : {}),
    ...(days === undefined ? {} : { rotateAfterDays: typeof days === 'number' ? days : null }),
  };
}

function withNumber(numbers: readonly number[], added: number): readonly number[] {
  return [...new Set([...numbers, added])].sort((one, other) => one - other);
}

function textOr<T>(value: unknown, otherwise: T): string | T {
  return typeof value === 'string' ? value : otherwise;
}

function wordsOf(value: unknown): string[] {
  return typeof value === 'string' && value !== '' ? value.split(',') : [];
}
