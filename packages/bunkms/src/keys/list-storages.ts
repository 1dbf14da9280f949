import { hasCode } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import { storageIdSchema } from '@bundoc/shared/contract/storages';
import type { RecordedStorage } from '../records/storage-record.ts';
import { allItems } from '../store/page.ts';
import { hasHolder } from './key-state.ts';
import { allKeys } from './read-keys.ts';
import { readStorage } from './storages.ts';
import type { KeyDeps } from './stored-key.ts';

const PAGE = 500;

/** A storage that has ever advanced or that holds a key. */
export interface StorageSummary {
  readonly id: string;
  /** Absent for a storage that has not started, and while the next start is accepted. */
  readonly generation?: string;
  /** How many keys it holds. */
  readonly keys: number;
  /**
   * When it last advanced or was given a key. Absent when neither is known: a take-over by an administrator
   * and a restore of BunKMS are no sign of life.
   */
  readonly last_seen?: string;
  /** Its record in the audit chain was changed: nothing but its number of keys is known. */
  readonly damaged?: true;
}

type ListDeps = Pick<KeyDeps, 'store' | 'chainKey' | 'logger'>;

/** All storages by id, and the keys that are damaged, so that their holder is unknown. */
export async function listStorages(
  deps: ListDeps,
): Promise<{ readonly storages: StorageSummary[]; readonly damaged: string[] }> {
  const { held, damaged } = await keysByHolder(deps);
  const ids = new Set(held.keys());
  const read = (after?: string) => deps.store.listStorages({ after, limit: PAGE });
  for await (const id of allItems(read, (one) => one)) ids.add(id);
  const storages: StorageSummary[] = [];
  // `unknown` is no storage, and anything else is a row that somebody has planted.
  for (const id of [...ids].filter((one) => storageIdSchema.safeParse(one).success).sort())
    storages.push({ id, keys: held.get(id) ?? 0, ...(await stateOf(deps, id)) });
  return { storages, damaged };
}

async function keysByHolder(
  deps: ListDeps,
): Promise<{ readonly held: Map<string, number>; readonly damaged: string[] }> {
  const held = new Map<string, number>();
  const damaged: string[] = [];
  for await (const { name, record } of allKeys(deps)) {
    if (record === undefined) damaged.push(name);
    else if (hasHolder(record)) held.set(record.holder, (held.get(record.holder) ?? 0) + 1);
  }
  return { held, damaged };
}

async function stateOf(
  deps: ListDeps,
  id: string,
): Promise<Pick<StorageSummary, 'generation' | 'last_seen' | 'damaged'>> {
  let state: RecordedStorage | undefined;
  try {
    state = await readStorage(deps, id);
  } catch (error) {
    if (hasCode(error, 'integrity_error')) return { damaged: true };
    throw error;
  }
  const { items } = await deps.store.listStorageExports(id, '', { limit: 1 });
  const advanced = state?.isTakenOver === false ? state.changedAt : undefined;
  // Both are in UTC with milliseconds, so they compare as text.
  const seen = [advanced, items[0]?.time].filter((time) => time !== undefined).sort();
  return defined({ generation: state?.generation ?? undefined, last_seen: seen.at(-1) });
}
