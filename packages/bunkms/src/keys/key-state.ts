import { AppError } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import { HOLDER_UNKNOWN, KEY_VERSIONS_MAX, type KeyDetail, type KeyInfo } from '@bundoc/shared/contract/keys';
import type { KeyRecord, KeyVersionRecord } from '../records/key-record.ts';
import type { AuthenticKey } from './stored-key.ts';

export const DAY_MS = 86_400_000;

/** @throws AppError `key_destroyed`. */
export function refuseDestroyed({ state }: KeyRecord): void {
  if (state === 'destroyed') throw new AppError('key_destroyed');
}

/** Requires an enabled or disabled key. @throws AppError `key_destroyed`, `key_pending_deletion`. */
export function refuseEnding(record: KeyRecord): void {
  refuseDestroyed(record);
  if (record.state === 'pending_deletion') throw new AppError('key_pending_deletion');
}

/**
 * Requires that this storage holds the key.
 *
 * @throws AppError `key_unheld` when no holder is known, `key_held_elsewhere` with the storage that holds it.
 */
export function requireHolder({ holder }: KeyRecord, storage: string): void {
  if (holder === storage) return;
  if (holder === null || holder === HOLDER_UNKNOWN) throw new AppError('key_unheld');
  throw new AppError('key_held_elsewhere', { storage: holder });
}

/** Whether its holder has a key, or content of a destroyed one that it has yet to remove. */
export function hasHolder(record: KeyRecord): record is KeyRecord & { readonly holder: string } {
  return record.holder !== null && (record.state !== 'destroyed' || record.intendedAt !== null);
}

/** Requires a key without a deletion intent. @throws AppError `key_destroyed`, `key_deletion_intended`. */
export function refuseIntended(record: KeyRecord): void {
  refuseDestroyed(record);
  if (record.intendedAt !== null) throw new AppError('key_deletion_intended');
}

/** Requires a usable key. @throws AppError `key_destroyed`, `key_pending_deletion`, `key_disabled`. */
export function requireEnabled(record: KeyRecord): void {
  refuseEnding(record);
  if (record.state === 'disabled') throw new AppError('key_disabled');
}

/**
 * When the policy of an enabled key rotates it.
 *
 * @param madeAt when the current version was created.
 * @returns null without a policy, for a key in another state, and for one with the maximum number of
 *   versions.
 */
export function nextRotationAt(
  { state, rotateAfterDays, version }: Pick<KeyRecord, 'state' | 'rotateAfterDays' | 'version'>,
  madeAt: string,
): string | null {
  if (state !== 'enabled' || rotateAfterDays === null || version >= KEY_VERSIONS_MAX) return null;
  return new Date(Date.parse(madeAt) + rotateAfterDays * DAY_MS).toISOString();
}

/** The public facts of a key. @param current its current version; undefined when that is damaged. */
export function infoOf(record: KeyRecord, current: KeyVersionRecord | undefined): KeyInfo {
  const { state, dueAt, destroyedAt } = record;
  return {
    id: record.id,
    name: record.name,
    type: record.type,
    state,
    version: record.version,
    revision: record.revision,
    exportable: record.exportable,
    rotate_after_days: record.rotateAfterDays,
    kcv: current?.kcv ?? '',
    created_at: record.createdAt,
    ...(state === 'enabled' && dueAt !== null ? { next_rotation_at: dueAt } : {}),
    ...(state === 'pending_deletion' && dueAt !== null ? { deletion_at: dueAt } : {}),
    ...(destroyedAt === null ? {} : { destroyed_at: destroyedAt }),
    ...(record.holder === null ? {} : { holder: record.holder }),
    ...(record.offer === null ? {} : { offered_to: record.offer.to, move: record.offer.move }),
    ...(record.intendedAt === null ? {} : { deletion_intended_at: record.intendedAt }),
    ...(record.outside === null
      ? {}
      : { outside: { key: record.outside.key, lease_ttl_s: record.outside.leaseTtlS } }),
  };
}

/** {@link infoOf} for a key that was read with its current version. */
export function infoOfKey({ record, versions }: Pick<AuthenticKey, 'record' | 'versions'>): KeyInfo {
  return infoOf(
    record,
    versions.find(({ version }) => version === record.version),
  );
}

/**
 * The public facts of a key that was read with all its versions.
 *
 * @param outside the outside keys of versions that need one, by number.
 */
export function detailOf(key: AuthenticKey, outside: ReadonlyMap<number, string>): KeyDetail {
  const genuine = new Set(key.versions.map(({ version }) => version));
  const numbers = Array.from({ length: key.record.version }, (_, index) => index + 1);
  const damaged = numbers.filter((version) => !genuine.has(version));
  return {
    ...infoOfKey(key),
    versions: key.versions.map(({ version, kcv, state, createdAt, destroyedAt }) => ({
      version,
      kcv,
      state,
      created_at: createdAt,
      ...(destroyedAt === null ? {} : { destroyed_at: destroyedAt }),
      ...defined({ outside: outside.get(version) }),
    })),
    ...(damaged.length === 0 ? {} : { damaged_versions: damaged }),
  };
}
