import { AppError } from '@bundoc/shared/contract/app-error';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { defined } from '@bundoc/shared/contract/defined';
import type { AuditReceipt, DestroyReceipt, KeyInfo } from '@bundoc/shared/contract/keys';
import type {
  DeletionIntent,
  DeletionPage,
  HolderOfKey,
  ShredKey,
  UnfinishedDeletion,
} from '@bundoc/shared/contract/storages';
import type { Caller } from '../records/caller.ts';
import { isGenuine } from '../records/chain-walk.ts';
import type { KeyRecord } from '../records/key-record.ts';
import { allItems, type PageQuery } from '../store/page.ts';
import { type ChangedKey, changeKey } from './change-key.ts';
import { destruction, receiptOf, scrub } from './destroy-key.ts';
import { infoOfKey, refuseDestroyed, requireHolder } from './key-state.ts';
import { type ActingStorage, requireCurrent } from './storages.ts';
import { type AuthenticKey, authenticate, type KeyDeps } from './stored-key.ts';

/**
 * The deletion of a project from the side of BunKMS. Its storage records the intent, requests the shredding
 * of the key, removes the content and reports that. Each step may be repeated. BunKMS lists unfinished
 * deletions, so no data on a disk can begin one.
 */

/** Records per page in the search for a change of a key. */
const CHANGES_PAGE = 100;

/** A request of a storage for a key that it holds. */
type Of<T> = T & { readonly name: string };

/**
 * Records that the holder of a key wants it shredded. From then on the key is not released. Without the
 * holder it is destroyed only if an administrator has scheduled that. The receipt is the place of the record,
 * and valid while that is the latest change of the key.
 *
 * @throws AppError `key_held_elsewhere`, `key_unheld`, `storage_superseded`, `key_destroyed`, and of {@link
 *   changeKey}.
 */
export async function intendDeletion(
  deps: KeyDeps,
  { name, ...acting }: Of<HolderOfKey>,
  caller: Caller,
): Promise<DeletionIntent> {
  const changed = await changeKey(deps, { name, acting }, 'current', caller, (key, time) => {
    const { record, changedBy } = key;
    refuseDestroyed(record);
    requireHolder(record, acting.storage);
    if (record.intendedAt !== null && changedBy === 'key.deletion_intent') return undefined;
    const intendedAt = record.intendedAt ?? time;
    // For an enabled key, `dueAt` is its next rotation.
    const dueAt = record.state === 'pending_deletion' ? record.dueAt : null;
    return {
      action: 'key.deletion_intent',
      record: { ...record, state: 'pending_deletion', dueAt, offer: null, intendedAt },
      detail: {
        holder: acting.storage,
        intended_at: intendedAt,
        ...(dueAt === null ? {} : { deletion_at: dueAt }),
      },
    };
  });
  return { name, receipt: changed.change, intended_at: intendedAtOf(changed.record) };
}

/**
 * Destroys a key whose holder wants it shredded.
 *
 * @throws AppError `precondition_failed` when the latest change is not the holder's intent ({@link
 *   intendsItself}) or has another receipt, for example after a cancelation; `key_held_elsewhere`,
 *   `key_unheld`, `storage_superseded`, `key_destroyed` when the key was destroyed in another way or its
 *   content is already removed, and of {@link changeKey}.
 */
export async function shredKey(
  deps: KeyDeps,
  { name, receipt, ...acting }: Of<ShredKey>,
  caller: Caller,
): Promise<DestroyReceipt> {
  const changed = await changeKey(deps, { name, acting }, 'all', caller, async (key, time) => {
    const { record, change } = key;
    const isDone = record.state === 'destroyed' && record.holder === acting.storage;
    if (isDone && record.intendedAt !== null) return undefined;
    refuseDestroyed(record);
    requireHolder(record, acting.storage);
    const isLatest = receipt.seq === change.seq && receipt.hash === change.hash;
    if (record.state !== 'pending_deletion' || record.intendedAt === null || !isLatest)
      throw new AppError('precondition_failed');
    if (!(await intendsItself(deps, key, acting.storage))) throw new AppError('precondition_failed');
    const { detail, ...decision } = destruction(key, time);
    return { ...decision, detail: { ...detail, holder: acting.storage, intent: receipt.seq } };
  });
  await scrub(deps);
  const answer = receiptOf(changed, changed.record.version);
  return changed.receipt === undefined ? repeated(deps, changed, answer, receipt) : answer;
}

/**
 * The answer to a repeated destruction: that of the original one, whatever came after it.
 *
 * @param answer the answer from the present state of the key.
 * @throws AppError `precondition_failed` when the receipt is neither that of the intent nor that of the
 *   destruction.
 */
async function repeated(
  deps: KeyDeps,
  { record, change }: Pick<ChangedKey, 'record' | 'change'>,
  answer: DestroyReceipt,
  receipt: AuditReceipt,
): Promise<DestroyReceipt> {
  let done: AuditRecord | undefined;
  for await (const one of changesOf(deps, record)) if (one.action === 'key.destroy') done = one;
  // After a restore the chain may lack it.
  if (done === undefined) return answer;
  const { seq, hash, detail = {} } = done;
  const isOf = (one: AuditReceipt) => one.seq === receipt.seq && one.hash === receipt.hash;
  const { intent, revision } = detail;
  if (intent !== undefined && intent !== receipt.seq && ![done, change].some(isOf))
    throw new AppError('precondition_failed');
  return {
    ...answer,
    revision: typeof revision === 'number' ? revision : answer.revision,
    audit: { seq, hash },
  };
}

/**
 * Whether the storage itself has requested the deletion, and only rewraps came since. The intent of a key
 * from a backup is not enough, because it may have been canceled after the backup.
 */
async function intendsItself(
  deps: KeyDeps,
  { record, changedBy }: AuthenticKey,
  storage: string,
): Promise<boolean> {
  if (changedBy === 'key.deletion_intent') return true;
  if (changedBy !== 'kek.rewrap') return false;
  let latest: AuditRecord | undefined;
  for await (const change of changesOf(deps, record)) latest = change;
  return latest?.action === 'key.deletion_intent' && latest.detail?.['holder'] === storage;
}

/** The changes of a key in order, without rewraps. Skips records that were changed. */
async function* changesOf(
  { store, chainKey }: Pick<KeyDeps, 'store' | 'chainKey'>,
  { id, name: key }: Pick<KeyRecord, 'id' | 'name'>,
): AsyncGenerator<AuditRecord> {
  const read = (after = 0) => store.listAudit({ key, bulk: false, after, limit: CHANGES_PAGE });
  for await (const record of allItems(read, ({ seq }) => seq)) {
    const { outcome, detail = {} } = record;
    const isChange = outcome === 'allowed' && detail['key_id'] === id && detail['revision'] !== undefined;
    if (isChange && isGenuine(chainKey, record)) yield record;
  }
}

/**
 * Finishes a deletion: the holder of a shredded key has removed the content, and stops being the holder.
 *
 * @throws AppError `precondition_failed` for a key that was not shredded; `key_held_elsewhere`,
 *   `storage_superseded`, and of {@link changeKey}.
 */
export async function finishDeletion(
  deps: KeyDeps,
  { name, ...acting }: Of<HolderOfKey>,
  caller: Caller,
): Promise<KeyInfo> {
  const changed = await changeKey(deps, { name, acting }, 'current', caller, ({ record }) => {
    if (record.state !== 'destroyed' || record.intendedAt === null) throw new AppError('precondition_failed');
    if (record.holder === null) return undefined;
    requireHolder(record, acting.storage);
    return {
      action: 'key.content_removed',
      record: { ...record, holder: null },
      detail: { from: acting.storage },
    };
  });
  return infoOfKey(changed);
}

/**
 * The unfinished deletions of a storage, by name. A page may be short or empty and still have a cursor.
 *
 * @param mayUse filters out keys that the caller may not use.
 * @throws AppError `storage_superseded`.
 */
export async function listDeletions(
  deps: KeyDeps,
  acting: ActingStorage,
  page: PageQuery<string>,
  mayUse: (name: string) => boolean,
): Promise<DeletionPage> {
  await requireCurrent(deps, acting);
  const { items, more } = await deps.store.listDeletions(acting.storage, page);
  const deletions: UnfinishedDeletion[] = [];
  for (const item of items) {
    const key = mayUse(item.name) ? authenticate(deps, item.name, item) : undefined;
    if (key === undefined) continue;
    const { state } = key.record;
    if (state !== 'pending_deletion' && state !== 'destroyed') continue;
    deletions.push({
      name: item.name,
      receipt: key.change,
      intended_at: intendedAtOf(key.record),
      state,
    });
  }
  const last = items.at(-1);
  return { deletions, ...defined({ next_cursor: more ? last?.name : undefined }) };
}

function intendedAtOf({ intendedAt }: { readonly intendedAt: string | null }): string {
  if (intendedAt === null) throw new Error('a key with a deletion intent has the time of the intent');
  return intendedAt;
}
