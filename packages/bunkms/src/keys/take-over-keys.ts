import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import type { Caller } from '../records/caller.ts';
import { draftNow } from '../records/draft-now.ts';
import type { KeyRecord } from '../records/key-record.ts';
import { takeOverKeyOf } from './key-holder.ts';
import { hasHolder } from './key-state.ts';
import { leaseLive, liveUntil } from './leases.ts';
import { allKeys } from './read-keys.ts';
import { readStorage, takeOverStorage } from './storages.ts';
import type { KeyDeps } from './stored-key.ts';

/**
 * Keys that change at once. On PostgreSQL they share transactions. SQLite changes one after another, and each
 * call has a deadline, so that more would fail on a slow disk.
 */
const AT_ONCE = 8;
/** How many names a sample has at most. */
const NAMES_MAX = 10;

/** From which storage to which. */
export interface StorageHandover {
  /** The storage that gets the keys. BunKMS must know it. */
  readonly storage: string;
  /** The storage that holds them. */
  readonly of: string;
}

/** How many keys, with the names of the first ones. */
export interface KeySample {
  readonly count: number;
  readonly first: readonly string[];
}

/** What a storage holds, as far as a take-over is concerned. */
export interface Holdings {
  /** Keys that another storage can take over. */
  readonly keys: KeySample;
  /** Keys with a deletion intent, which no other storage gets: an administrator restores or destroys them. */
  readonly deletion_intended: KeySample;
  /** Keys of the whole installation whose holder is unknown because they are damaged. */
  readonly damaged: KeySample;
  /** Until when the storage may use a key that was released to it; absent when it may use none. */
  readonly leases_until?: string;
}

/**
 * What {@link takeOverKeys} would find. Changes nothing.
 *
 * @throws AppError `storage_not_found` when `storage` is unknown, or `of` is unknown and holds no key.
 */
export async function holdingsOf(deps: KeyDeps, { storage, of }: StorageHandover): Promise<Holdings> {
  if ((await readStorage(deps, storage)) === undefined)
    throw notFound(`no storage ${storage} is known: start its Bundoc once`);
  const found = await lookAt(deps, of);
  const isUnused = found.keys.count + found.deletion_intended.count === 0;
  if (isUnused && (await deps.store.storageRecord(of)) === undefined)
    throw notFound(`no storage ${of} is known, and it holds no keys`);
  return found;
}

async function lookAt(deps: KeyDeps, of: string): Promise<Holdings> {
  const found = { keys: new Sample(), deletion_intended: new Sample(), damaged: new Sample() };
  for await (const { name, record } of allKeys(deps)) {
    if (record === undefined) found.damaged.add(name);
    else if (record.holder === of && hasHolder(record))
      (isIntended(record) ? found.deletion_intended : found.keys).add(name);
  }
  const until = await liveUntil(deps.clock, (from, page) => deps.store.listStorageExports(of, from, page));
  return { ...found, ...defined({ leases_until: until }) };
}

/**
 * Gives every key that a storage holds to another one, as an administrator, for a storage that is lost.
 *
 * Each key changes separately, together with its record, and only while the storage still holds it. So this
 * may be interrupted at any time, and a repetition continues with the keys that are left. A CRITICAL record
 * of the whole act, with the number of keys, is durable before the first key changes. Without keys to give
 * there is no record. It counts as a take-over of the storage that gets the keys: a running Bundoc with it
 * pauses, and looks for lost projects.
 *
 * @param holdings of {@link holdingsOf}.
 * @param onTaken called after each key with the number of keys so far.
 * @returns how many keys have changed, and what the storage holds afterwards: keys that came to it or were
 *   released in the meantime, and those that no other storage gets.
 * @throws AppError `lease_live`, with nothing changed, while the storage may use a key, unless forced;
 *   `audit_unavailable`, and of the store.
 */
export async function takeOverKeys(
  deps: KeyDeps,
  { storage, of, force }: StorageHandover & { readonly force: boolean },
  holdings: Holdings,
  caller: Caller,
  onTaken: (done: number) => void,
): Promise<{ readonly taken: number; readonly left: Holdings }> {
  const { count } = holdings.keys;
  if (count === 0) return { taken: 0, left: holdings };
  if (holdings.leases_until !== undefined && !force) throw leaseLive(holdings.leases_until);
  const detail = { from: of, to: storage, count, force };
  await deps.audit.append(draftNow(deps, caller, 'keys.take_over', { severity: 'CRITICAL', detail }));
  // A storage that is taken over looks for projects whose keys it holds and that it lacks: it refuses them as
  // lost, until they are restored. Before the keys come, so that a running Bundoc stops. Afterwards again, in
  // case it has started in between.
  const lookForLost = () => takeOverStorage(deps, storage, { force: true }, caller);
  await lookForLost();
  let taken = 0;
  // Shared by all takers. A taker that fails ends it for the others, too.
  const keys = allKeys(deps);
  const take = async () => {
    for await (const { name, record } of keys) {
      if (record?.holder !== of || !hasHolder(record) || isIntended(record)) continue;
      if (await takeOverUnlessRefused(deps, { name, storage, force }, of, caller)) onTaken(++taken);
    }
  };
  // A taker that fails ends only once the others have: the store must not close under them.
  const takers = await Promise.allSettled(Array.from({ length: AT_ONCE }, take));
  const failed = takers.find((taker) => taker.status === 'rejected');
  await lookForLost();
  if (failed !== undefined) throw failed.reason;
  return { taken, left: await lookAt(deps, of) };
}

/** Refusals of single keys that changed or were released in the meantime do not end the whole. */
async function takeOverUnlessRefused(
  deps: KeyDeps,
  wanted: { readonly name: string; readonly storage: string; readonly force: boolean },
  of: string,
  caller: Caller,
): Promise<boolean> {
  try {
    return await takeOverKeyOf(deps, wanted, of, caller);
  } catch (error) {
    if (hasCode(error, 'lease_live', 'key_deletion_intended', 'key_destroyed', 'key_damaged')) return false;
    throw error;
  }
}

/** Whether its holder has begun to shred it. Of a shredded key, only content is left to remove. */
function isIntended({ state, intendedAt }: KeyRecord): boolean {
  return state !== 'destroyed' && intendedAt !== null;
}

function notFound(detail: string): AppError {
  return new AppError('storage_not_found', { detail });
}

class Sample implements KeySample {
  count = 0;
  readonly first: string[] = [];

  add(name: string): void {
    if (this.count++ < NAMES_MAX) this.first.push(name);
  }
}
