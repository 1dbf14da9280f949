import { AppError } from '@bundoc/shared/contract/app-error';
import { type KeyInfo, PENDING_DAYS, type UpdateKey } from '@bundoc/shared/contract/keys';
import type { Caller } from '../records/caller.ts';
import { changeKey, type Decision, type KeyRequest } from './change-key.ts';
import { DAY_MS, infoOfKey, nextRotationAt, refuseDestroyed, refuseEnding } from './key-state.ts';
import { type AuthenticKey, type KeyDeps, versionOf } from './stored-key.ts';

/**
 * The states of a key (NIST SP 800-57 part 1, section 7, uses other names): `enabled ⇄ disabled →
 * pending_deletion → destroyed`. A call for a state that the key already has succeeds, changes nothing and
 * leaves no record, so it may be repeated.
 */

/**
 * Enables a disabled key. @throws AppError `key_pending_deletion`, `key_destroyed`, and of {@link changeKey}.
 */
export async function enableKey(deps: KeyDeps, request: KeyRequest, caller: Caller): Promise<KeyInfo> {
  const changed = await changeKey(deps, request, 'current', caller, (key) => {
    refuseEnding(key.record);
    if (key.record.state === 'enabled') return undefined;
    const record = { ...key.record, state: 'enabled' as const };
    return { action: 'key.enable', record: { ...record, dueAt: rotationOf(deps, key, record) } };
  });
  return infoOfKey(changed);
}

/** Disables a key: no version is released. @throws as {@link enableKey}. */
export async function disableKey(deps: KeyDeps, request: KeyRequest, caller: Caller): Promise<KeyInfo> {
  const changed = await changeKey(deps, request, 'current', caller, ({ record }) => {
    refuseEnding(record);
    if (record.state === 'disabled') return undefined;
    return { action: 'key.disable', record: { ...record, state: 'disabled', dueAt: null } };
  });
  return infoOfKey(changed);
}

/**
 * Schedules the deletion of a key in `pendingDays`. Until then it can be restored and is not released. The
 * first call sets the day, also for a key whose holder wants it shredded. Later calls do not move it.
 *
 * @throws AppError `key_destroyed`, and of {@link changeKey}.
 */
export async function scheduleDeletion(
  deps: KeyDeps,
  request: KeyRequest & { readonly pendingDays: number },
  caller: Caller,
): Promise<KeyInfo> {
  const changed = await changeKey(deps, request, 'current', caller, ({ record }, time) => {
    refuseDestroyed(record);
    if (record.state === 'pending_deletion' && record.dueAt !== null) return undefined;
    const days = Math.max(PENDING_DAYS.min, request.pendingDays);
    const dueAt = new Date(Date.parse(time) + days * DAY_MS).toISOString();
    return {
      action: 'key.schedule_deletion',
      record: { ...record, state: 'pending_deletion', dueAt },
      detail: { deletion_at: dueAt },
    };
  });
  return infoOfKey(changed);
}

/**
 * Cancels the deletion of a key. It becomes `disabled`, so that using it again is a separate decision.
 *
 * @throws AppError `key_not_pending_deletion`, `key_destroyed`, and of {@link changeKey}.
 */
export async function restoreKey(deps: KeyDeps, request: KeyRequest, caller: Caller): Promise<KeyInfo> {
  const changed = await changeKey(deps, request, 'current', caller, ({ record }) => {
    refuseDestroyed(record);
    if (record.state !== 'pending_deletion') throw new AppError('key_not_pending_deletion');
    return { action: 'key.restore', record: { ...record, state: 'disabled', dueAt: null, intendedAt: null } };
  });
  return infoOfKey(changed);
}

/**
 * Changes the policies of a key.
 *
 * @throws AppError `key_not_exportable` for a change of `exportable` back to true; `key_pending_deletion`,
 *   `key_destroyed`, and of {@link changeKey}.
 */
export async function updateKey(
  deps: KeyDeps,
  request: KeyRequest & { readonly update: UpdateKey },
  caller: Caller,
): Promise<KeyInfo> {
  const changed = await changeKey(deps, request, 'current', caller, (key) =>
    updated(deps, key, request.update),
  );
  return infoOfKey(changed);
}

function updated(deps: KeyDeps, key: AuthenticKey, update: UpdateKey): Decision | undefined {
  refuseEnding(key.record);
  const { exportable = key.record.exportable, rotate_after_days: days = key.record.rotateAfterDays } = update;
  if (exportable && !key.record.exportable)
    throw new AppError('key_not_exportable', { detail: 'exportable may only become false' });
  if (exportable === key.record.exportable && days === key.record.rotateAfterDays) return undefined;
  const record = { ...key.record, exportable, rotateAfterDays: days };
  return {
    action: 'key.update',
    record: { ...record, dueAt: rotationOf(deps, key, record) },
    detail: { exportable, rotate_after_days: days ?? 'never' },
  };
}

/**
 * The next rotation, from the creation time of the current version, which must be genuine only if there is a
 * policy.
 */
function rotationOf({ logger }: KeyDeps, key: AuthenticKey, record: AuthenticKey['record']): string | null {
  if (record.rotateAfterDays === null) return null;
  return nextRotationAt(record, versionOf(key, record.version, logger).createdAt);
}
