import { AppError } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import { KEY_VERSIONS_MAX, type KeyInfo } from '@bundoc/shared/contract/keys';
import type { Caller } from '../records/caller.ts';
import { draftNow } from '../records/draft-now.ts';
import type { KeyRecord } from '../records/key-record.ts';
import type { Vault } from '../vault/vault.ts';
import { type ChangedKey, changeKey, type Decision, type KeyRequest } from './change-key.ts';
import { infoOfKey, nextRotationAt, requireEnabled } from './key-state.ts';
import { mintVersion } from './mint-version.ts';
import { findAttached, requireOpens } from './open-dek.ts';
import { type AuthenticKey, type KeyDeps, versionOf } from './stored-key.ts';

export interface Rotation extends KeyRequest {
  /** Rotates only if this is the current version. */
  readonly expectedVersion?: number | undefined;
  /** Rotates even if the current version does not open: data under it are given up. */
  readonly acceptLoss?: boolean;
}

/**
 * Creates the next version of a key and makes it current, together with its audit record. Older versions do
 * not change.
 *
 * Concurrent rotations in any process create one version: the store accepts the first, and the others return
 * that version. It was created after each of their requests, so it is as new as they need.
 *
 * A key whose current version does not open is not rotated unless its loss is accepted, because `bunkms
 * recover` may restore it.
 *
 * @returns the key with its current version, once durable. With another `expectedVersion` that is the
 *   present version.
 * @throws AppError `key_not_found`, `key_disabled`, `key_pending_deletion`, `key_destroyed`,
 *   `key_versions_exhausted`, `key_damaged`, `precondition_failed`, `outside_key_denied`,
 *   `outside_key_unavailable`, `outside_key_changed`. After `storage_unavailable` the rotation
 *   may have happened; with `expectedVersion` a retry does not rotate again.
 */
export async function rotateKey(deps: KeyDeps, rotation: Rotation, caller: Caller): Promise<KeyInfo> {
  const { expectedVersion } = rotation;
  let firstSeen: number | undefined;
  const changed = await changeKey(deps, rotation, 'current', caller, (key, time) => {
    requireEnabled(key.record);
    firstSeen ??= key.record.version;
    const isExpected = key.record.version === (expectedVersion ?? firstSeen);
    return isExpected ? nextVersion(deps, key, time, rotation.acceptLoss) : undefined;
  });
  if (changed.receipt === undefined) await recordUnneeded(deps, changed, rotation, caller);
  return infoOfKey(changed);
}

/**
 * Rotates a key that is due by its policy, on behalf of the service. Does nothing if another request has
 * rotated it.
 *
 * @returns whether this call rotated it.
 */
export async function rotateDueKey(
  deps: KeyDeps,
  name: string,
  until: string,
  caller: Caller,
): Promise<boolean> {
  const { receipt } = await changeKey(deps, { name }, 'current', caller, (key, time) => {
    const { state, dueAt } = key.record;
    return state === 'enabled' && dueAt !== null && dueAt <= until ? nextVersion(deps, key, time) : undefined;
  });
  return receipt !== undefined;
}

async function nextVersion(
  deps: KeyDeps,
  key: AuthenticKey,
  time: string,
  acceptLoss = false,
): Promise<Decision> {
  const present = key.record;
  requireSpare(present);
  if (!acceptLoss) requireOpens(deps, present.name, versionOf(key, present.version, deps.logger));
  const { id: keyId, name, outside } = present;
  const outsideKey = outside === null ? undefined : await findAttached(deps.outside, outside.key, outside);
  const identity = { keyId, name, version: present.version + 1 };
  const added = await mintVersion(deps.vault, identity, time, outsideKey);
  const record = { ...present, version: added.version, kekIds: withKek(present.kekIds, deps.vault) };
  return {
    action: 'key.rotate',
    record: { ...record, dueAt: nextRotationAt(record, time) },
    versions: [added],
    version: added.version,
    detail: { kcv: added.kcv, ...(acceptLoss ? { accepted_loss: true } : {}) },
  };
}

/** @throws AppError `key_versions_exhausted`. */
export function requireSpare({ version }: KeyRecord): void {
  if (version < KEY_VERSIONS_MAX) return;
  const detail = `a key has at most ${KEY_VERSIONS_MAX} versions`;
  throw new AppError('key_versions_exhausted', { detail });
}

/** The KEKs of a key after wrapping a version with the current one. */
export function withKek(kekIds: readonly string[], { currentKekId }: Vault): readonly string[] {
  return kekIds.includes(currentKekId) ? kekIds : [...kekIds, currentKekId];
}

/** Records that this call rotated nothing. */
async function recordUnneeded(
  { store, clock }: KeyDeps,
  { record }: ChangedKey,
  { expectedVersion }: Rotation,
  caller: Caller,
): Promise<void> {
  const { id, name: key, version } = record;
  const detail = { key_id: id, ...defined({ expected_version: expectedVersion }) };
  const draft = draftNow({ clock }, caller, 'key.rotate_unneeded', { key, version, detail });
  await store.appendAudit([draft]);
}
