import { defined } from '@bundoc/shared/contract/defined';
import type { KeyDetail, KeyInfo, KeyPage } from '@bundoc/shared/contract/keys';
import type { Caller } from '../records/caller.ts';
import { draftNow } from '../records/draft-now.ts';
import type { KeyRecord } from '../records/key-record.ts';
import { allItems, cursorOf, type PageQuery } from '../store/page.ts';
import { detailOf, infoOfKey, refuseDestroyed } from './key-state.ts';
import { outsideNames, outsideStateOf } from './outside-state.ts';
import { authenticate, type KeyDeps, readStoredKey } from './stored-key.ts';

/**
 * Keys that a list reads and authenticates before other calls have their turn: about 3 ms in the storage
 * thread, and less here.
 */
const STEP = 50;
/** Keys that a command reads at once. */
const PAGE = 500;

/** The key and its versions. @throws AppError `key_not_found`, `key_destroyed`, `key_damaged`. */
export async function readKey(deps: KeyDeps, name: string, caller: Caller): Promise<KeyDetail> {
  const key = await readStoredKey(deps, name, 'all');
  refuseDestroyed(key.record);
  await deps.audit.record(draftNow(deps, caller, 'key.read', { key: name, version: key.record.version }));
  const names = outsideNames(deps, key);
  return { ...detailOf(key, names), ...defined({ outside_state: await outsideStateOf(deps, key, names) }) };
}

/**
 * The keys that match `globs`, by name, including destroyed ones. `next_cursor` is the name to continue
 * after. A page may be short or empty and still have it.
 */
export async function listKeys(
  deps: KeyDeps,
  globs: readonly string[],
  page: PageQuery<string>,
  caller: Caller,
): Promise<KeyPage> {
  const keys: KeyInfo[] = [];
  const damaged: string[] = [];
  let next = page.after;
  for (let left = page.limit, more = true; more; ) {
    const found = await deps.store.listKeys(globs, { after: next, limit: Math.min(STEP, left) });
    for (const item of found.items) {
      const key = authenticate(deps, item.name, item);
      if (key === undefined) damaged.push(item.name);
      else keys.push(infoOfKey(key));
    }
    left -= found.items.length;
    next = cursorOf(found, ({ name }) => name);
    // The store has looked at many names that no glob matches. The caller decides whether to continue.
    more = left > 0 && next !== undefined && found.next === undefined;
  }
  const detail = { count: keys.length + damaged.length };
  await deps.audit.record(draftNow(deps, caller, 'key.list', { detail }));
  return {
    keys,
    ...(damaged.length === 0 ? {} : { damaged }),
    ...defined({ next_cursor: next }),
  };
}

/**
 * All keys by name, for a command that has a process of its own. Without an audit record.
 *
 * @returns each name with its key; undefined for a damaged one.
 */
export async function* allKeys(
  deps: Pick<KeyDeps, 'store' | 'chainKey' | 'logger'>,
): AsyncGenerator<{ readonly name: string; readonly record: KeyRecord | undefined }> {
  const read = (after?: string) => deps.store.listKeys(['*'], { after, limit: PAGE });
  for await (const item of allItems(read, ({ name }) => name))
    yield { name: item.name, record: authenticate(deps, item.name, item)?.record };
}
