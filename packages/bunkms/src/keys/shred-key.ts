import { AppError } from '@bundoc/shared/contract/app-error';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt, DestroyReceipt, KeyInfo } from '@bundoc/shared/contract/keys';
import type {
  DeletionIntent,
  DeletionPage,
  HolderOfKey,
  ShredKey,
  UnfinishedDeletion,
} from '@bundoc/shared/contract/storages';
import type { Caller } from '../records/caller.ts';
import { recordHash } from '../records/chain.ts';
import type { KeyRecord } from '../records/key-record.ts';
import { cursorOf, type PageQuery } from '../store/page.ts';
import { type ChangedKey, changeKey } from './change-key.ts';
import { destruction, receiptOf, scrub } from './destroy-key.ts';
import { infoOfKey, refuseDestroyed, requireHolder } from './key-state.ts';
import { type ActingStorage, requireCurrent } from './storages.ts';
import { type AuthenticKey, authenticate, type KeyDeps } from './stored-key.ts';

/**
 * The deletion of a project, as BunKMS sees it: its storage records the intent, has the key shredded, removes
 * the content and says so. Each step may be repeated, and what is unfinished is asked of BunKMS, so nothing
 * on a disk can begin a deletion.
 */

/** Records that are read at once in the search for a change of a key. */
const CHANGES_PAGE = 100;

/** What a storage asks of a key that it holds. */
type Of<T> = T & { readonly name: string };

/**
 * Records that the holder of a key wants it shredded. From then on the key is not released. It is destroyed
 * by itself only on a day that an administrator has set. The receipt is the place of that record; it is good
 * while that is the latest change of the key.
 *
 * @throws AppError `key_held_elsewhere`, `key_unheld`, `storage_superseded`, `key_destroyed`, and of
 * {@link changeKey}.
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
    // Of an enabled key it is the day of its next rotation.
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
 * @throws AppError `precondition_failed` when the receipt is not that of the latest change of the key, as
 * after the deletion was taken back, or that change is not the holder's intent ({@link intendsItself});
 * `key_held_elsewhere`, `key_unheld`, `storage_superseded`, `key_destroyed` when the key was destroyed
 * otherwise or its content is removed already, and of {@link changeKey}.
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
 * The answer to a destruction that was done before: that of the destruction, whatever came after it.
 *
 * @param answer what the key as it is now gives.
 * @throws AppError `precondition_failed` when the receipt is neither that of the intent that was carried out,
 * nor that of what came of it.
 */
async function repeated(
  deps: KeyDeps,
  { record, change }: Pick<ChangedKey, 'record' | 'change'>,
  answer: DestroyReceipt,
  receipt: AuditReceipt,
): Promise<DestroyReceipt> {
  let done: AuditRecord | undefined;
  for await (const one of changesOf(deps, record)) if (one.action === 'key.destroy') done = one;
  // After a restore the chain may not have it.
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
 * Tells whether the storage itself has asked for the deletion, and nothing but new wrappings came since. The
 * intent of a key that came from a backup is not enough: it may have been taken back after that.
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

/**
 * The changes of a key in their order, without new wrappings. Leaves out records that are not as they were
 * written.
 */
async function* changesOf(
  { store, chainKey }: Pick<KeyDeps, 'store' | 'chainKey'>,
  { id, name: key }: Pick<KeyRecord, 'id' | 'name'>,
): AsyncGenerator<AuditRecord> {
  for (let after: number | undefined = 0; after !== undefined; ) {
    const page = await store.listAudit({ key, bulk: false, after, limit: CHANGES_PAGE });
    for (const record of page.items) {
      const { seq, prev_hash: previous, hash, outcome, detail = {} } = record;
      const isChange = outcome === 'allowed' && detail['key_id'] === id && detail['revision'] !== undefined;
      if (isChange && recordHash(chainKey, previous, seq, record) === hash) yield record;
    }
    after = cursorOf(page, ({ seq }) => seq);
  }
}

/**
 * Ends a deletion: the holder of a shredded key has removed the content, and holds it no longer.
 *
 * @throws AppError `precondition_failed` for a key that was not shredded; `key_held_elsewhere`,
 * `storage_superseded`, and of
 * {@link changeKey}.
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
 * The deletions that a storage has begun and not finished, by name. A page may be short, or empty, and still
 * have a cursor.
 *
 * @param mayUse leaves out keys that the caller may not use.
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
  return { deletions, ...(more && last !== undefined ? { next_cursor: last.name } : {}) };
}

function intendedAtOf({ intendedAt }: { readonly intendedAt: string | null }): string {
  if (intendedAt === null) throw new Error('a key that is to be shredded says since when');
  return intendedAt;
}
