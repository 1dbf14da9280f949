import type { KeyDetail, KeyInfo, KeyPage } from '@bundoc/shared/contract/keys';
import type { Caller } from '../records/caller.ts';
import { cursorOf, type PageQuery } from '../store/page.ts';
import { detailOf, infoOfKey, refuseDestroyed } from './key-state.ts';
import { authenticate, type KeyDeps, readStoredKey } from './stored-key.ts';

/** The key and its versions. @throws AppError `key_not_found`, `key_destroyed`, `key_damaged`. */
export async function readKey(deps: KeyDeps, name: string, caller: Caller): Promise<KeyDetail> {
  const key = await readStoredKey(deps, name, 'all');
  refuseDestroyed(key.record);
  deps.audit.appendInBackground({
    ...caller,
    time: new Date(deps.clock.now()).toISOString(),
    severity: 'INFO',
    action: 'key.read',
    outcome: 'allowed',
    key: name,
    version: key.record.version,
  });
  return detailOf(key);
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
  const found = await deps.store.listKeys(globs, page);
  const { items } = found;
  const keys: KeyInfo[] = [];
  const damaged: string[] = [];
  for (const item of items) {
    const key = authenticate(deps, item.name, item);
    if (key === undefined) damaged.push(item.name);
    else keys.push(infoOfKey(key));
  }
  deps.audit.appendInBackground({
    ...caller,
    time: new Date(deps.clock.now()).toISOString(),
    severity: 'INFO',
    action: 'key.list',
    outcome: 'allowed',
    detail: { count: items.length },
  });
  const next = cursorOf(found, ({ name }) => name);
  return {
    keys,
    ...(damaged.length === 0 ? {} : { damaged }),
    ...(next === undefined ? {} : { next_cursor: next }),
  };
}
