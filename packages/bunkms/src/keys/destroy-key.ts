import assert from 'node:assert/strict';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { DestroyReceipt } from '@bundoc/shared/contract/keys';
import type { Caller } from '../records/caller.ts';
import type { KeyRecord, KeyVersionRecord } from '../records/key-record.ts';
import { type ChangedKey, changeKey, type Decision, type KeyRequest } from './change-key.ts';
import { refuseDestroyed, refuseEnding } from './key-state.ts';
import { type AuthenticKey, type KeyDeps, versionNotFound, versionOf } from './stored-key.ts';

const NO_BYTES = new Uint8Array();

/**
 * Destroys a key at once and permanently: its wrapped versions are removed from the store, and its name is
 * never used again. Also works on a key with damaged versions.
 *
 * @throws AppError `key_destroyed`, and of `changeKey`.
 */
export async function destroyKey(
  deps: KeyDeps,
  request: KeyRequest,
  caller: Caller,
): Promise<DestroyReceipt> {
  const changed = await changeKey(deps, request, 'all', caller, destruction);
  await scrub(deps);
  return receiptOf(changed, changed.record.version);
}

/**
 * Destroys a key whose deletion is due, on behalf of the service. Does nothing if another request has
 * destroyed or restored the key.
 *
 * @returns whether this call destroyed it.
 */
export async function purgeKey(deps: KeyDeps, name: string, until: string, caller: Caller): Promise<boolean> {
  const { receipt } = await changeKey(deps, { name }, 'all', caller, (key, time) => {
    const { state, dueAt } = key.record;
    return state === 'pending_deletion' && dueAt !== null && dueAt <= until
      ? destruction(key, time)
      : undefined;
  });
  return receipt !== undefined;
}

export function destruction({ record, versions }: AuthenticKey, time: string): Decision {
  refuseDestroyed(record);
  return {
    action: 'key.destroy',
    record: { ...record, state: 'destroyed', dueAt: null, destroyedAt: time },
    versions: allDestroyed(record, versions, time),
    detail: { kek_ids: record.kekIds.join(',') },
  };
}

/**
 * All versions of a key in destroyed form. Damaged versions are missing among those that were read. They are
 * recreated in destroyed form, so that their bytes are removed too.
 *
 * @param versions the genuine ones.
 */
export function allDestroyed(
  { id, version: count }: Pick<KeyRecord, 'id' | 'version'>,
  versions: readonly KeyVersionRecord[],
  time: string,
): KeyVersionRecord[] {
  const genuine = new Map(versions.map((version) => [version.version, version]));
  const numbers = Array.from({ length: count }, (_, index) => index + 1);
  return numbers.map((number) => destroyed(genuine.get(number) ?? lostVersion(id, number, time), time));
}

interface VersionToDestroy extends KeyRequest {
  readonly version: number;
  /** Destroys a version that is damaged or lost, too: what is sealed under it is given up. */
  readonly acceptLoss?: boolean;
}

/**
 * Destroys one version that is no longer needed, never the current one. One that is damaged is refused unless
 * its loss is accepted, because `bunkms recover` may restore it.
 *
 * @throws AppError `key_not_found` for a version that never existed, `key_version_current`,
 *   `key_version_destroyed`, `key_pending_deletion`, `key_destroyed`, and of `changeKey`.
 */
export async function destroyVersion(
  deps: KeyDeps,
  request: VersionToDestroy,
  caller: Caller,
): Promise<DestroyReceipt> {
  const number = request.version;
  const changed = await changeKey(deps, request, number, caller, (key, time) => {
    refuseEnding(key.record);
    if (number > key.record.version) throw versionNotFound(key.record);
    if (number === key.record.version) throw new AppError('key_version_current');
    const present = key.versions.some((one) => one.version === number);
    const version =
      present || request.acceptLoss !== true
        ? versionOf(key, number, deps.logger)
        : lostVersion(key.record.id, number, time);
    if (version.state === 'destroyed') throw new AppError('key_version_destroyed');
    return {
      action: 'key.destroy_version',
      record: key.record,
      versions: [destroyed(version, time)],
      version: number,
      detail: { kek_ids: key.record.kekIds.join(',') },
    };
  });
  await scrub(deps);
  return { ...receiptOf(changed, number), version: number };
}

/** The version without its bytes. */
export function destroyed(version: KeyVersionRecord, time: string): KeyVersionRecord {
  if (version.state === 'destroyed') return version;
  return { ...version, state: 'destroyed', destroyedAt: time, wrapped: NO_BYTES };
}

/** The known facts of a version whose record is lost. */
export function lostVersion(keyId: string, version: number, time: string): KeyVersionRecord {
  return {
    keyId,
    version,
    kcv: '',
    state: 'available',
    createdAt: time,
    destroyedAt: null,
    wrapped: NO_BYTES,
  };
}

/**
 * The receipt for a destruction.
 *
 * It lists all KEKs that ever wrapped the key: a copy of any version may have been made while each of them
 * was current.
 *
 * @param changed the key after the destruction.
 */
export function receiptOf(
  { record, change, versions }: Pick<ChangedKey, 'record' | 'change' | 'versions'>,
  version: number,
): DestroyReceipt {
  const destroyedAt = record.destroyedAt ?? versions.find((one) => one.version === version)?.destroyedAt;
  assert(typeof destroyedAt === 'string', 'a destruction changes the key and its version');
  return {
    id: record.id,
    name: record.name,
    state: record.state,
    revision: record.revision,
    destroyed_at: destroyedAt,
    kek_ids: [...record.kekIds],
    audit: change,
  };
}

/**
 * Erases the bytes from the storage. The key is already destroyed, even if this fails: the service's sweep
 * retries until it succeeds.
 */
export async function scrub({ store, logger }: KeyDeps): Promise<void> {
  try {
    await store.scrub();
  } catch (error) {
    logger.warn({ err: error }, 'failed to scrub the storage; trying again later');
  }
}
