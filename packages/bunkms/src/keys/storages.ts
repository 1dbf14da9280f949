import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { AdvanceStorage, StorageInfo, TakeOverStorage } from '@bundoc/shared/contract/storages';
import type { Caller } from '../records/caller.ts';
import {
  type RecordedStorage,
  type StorageState,
  storageDraft,
  storageIn,
  takeOverTime,
} from '../records/storage-record.ts';
import type { StorageStamp } from '../store/storages.ts';
import { leaseLive, liveUntil } from './leases.ts';
import type { KeyDeps } from './stored-key.ts';

/** Maximum retries: each round lets one of the concurrent writers succeed. */
const ROUNDS_MAX = 256;

/** A storage that makes a request, with the generation that it claims. */
export interface ActingStorage {
  readonly storage: string;
  readonly generation: string;
}

/**
 * The state of a storage, from its latest record in the audit chain.
 *
 * @returns undefined when there is no such storage.
 * @throws AppError `integrity_error` when that record was changed.
 */
export async function readStorage(
  { store, chainKey, logger }: Pick<KeyDeps, 'store' | 'chainKey' | 'logger'>,
  id: string,
): Promise<RecordedStorage | undefined> {
  const record = await store.storageRecord(id);
  if (record === undefined) return undefined;
  const state = storageIn(chainKey, id, record);
  if (state !== undefined) return state;
  logger.error({ storage: id, auditSeq: record.seq }, 'the audit record of a storage was changed');
  throw new AppError('integrity_error', { detail: 'the audit record of the storage was changed' });
}

/**
 * Requires that the storage has its current generation.
 *
 * @returns the stamp that a write must find unchanged, so that no copy acts after another one has replaced
 *   it.
 * @throws AppError `storage_superseded`, also for an unknown storage, and of {@link readStorage}.
 */
export async function requireCurrent(
  deps: Pick<KeyDeps, 'store' | 'chainKey' | 'logger'>,
  { storage, generation }: ActingStorage,
): Promise<StorageStamp> {
  const state = await readStorage(deps, storage);
  if (state === undefined || state.generation !== generation) throw new AppError('storage_superseded');
  return { id: storage, seq: state.seq };
}

/** @throws AppError `storage_not_found`, and of {@link readStorage}. */
export async function storageInfo(deps: KeyDeps, id: string): Promise<StorageInfo> {
  const state = await readStorage(deps, id);
  if (state === undefined) throw new AppError('storage_not_found');
  return infoOf(state, state.changedAt);
}

/**
 * Advances a storage from one of the generations that it may have to a new one. Registers an unknown storage.
 * One that has had generations was in a store that is lost, so its last take-over is unknown. May be
 * repeated.
 *
 * @throws AppError `storage_superseded` when its generation is another one; `unauthenticated` when the
 *   token was revoked; `audit_unavailable`, and of {@link readStorage}.
 */
export async function advanceStorage(
  deps: KeyDeps,
  id: string,
  { from, to }: AdvanceStorage,
  caller: Caller,
): Promise<StorageInfo> {
  return change(deps, id, caller, 'storage.advance', async () => {
    const state = await readStorage(deps, id);
    if (state?.generation === to) return { present: state };
    if (typeof state?.generation === 'string' && !from.includes(state.generation))
      throw new AppError('storage_superseded');
    const takenOverMs = state?.takenOverMs ?? (from.length === 0 ? 0 : takeOverTime(0, deps.clock.now()));
    return { before: state, next: { id, generation: to, takenOverMs } };
  });
}

/**
 * Lets another copy of a storage replace it: the copy with `generation`, or without it the next copy that
 * starts. This is an administrator's action, and also recovers from a changed record. May be repeated: it
 * does nothing if the storage is already in that state.
 *
 * @throws AppError `storage_not_found`; `lease_live` while a key that was released to the storage may be in
 *   use, unless forced; `unauthenticated` when the token was revoked; `audit_unavailable`, and of {@link
 *   readStorage} unless forced.
 */
export async function takeOverStorage(
  deps: KeyDeps,
  id: string,
  { generation, force }: TakeOverStorage,
  caller: Caller,
): Promise<StorageInfo> {
  return change(deps, id, caller, 'storage.take_over', async () => {
    const before = await stateToTakeOver(deps, id, force);
    // With its present generation, too: a copy that has it may be older than the lost one.
    if ('generation' in before && before.isTakenOver && before.generation === (generation ?? null))
      return { present: before };
    const unreleasedSince = force ? undefined : await requireUnreleased(deps, id);
    const takenOverMs = takeOverTime(before.takenOverMs, deps.clock.now());
    return {
      before,
      unreleasedSince,
      next: { id, generation: generation ?? null, takenOverMs },
    };
  });
}

async function stateToTakeOver(
  deps: KeyDeps,
  id: string,
  force: boolean,
): Promise<RecordedStorage | Pick<RecordedStorage, 'takenOverMs' | 'seq'>> {
  try {
    const state = await readStorage(deps, id);
    if (state !== undefined) return state;
  } catch (error) {
    const record = await deps.store.storageRecord(id);
    if (!force || !hasCode(error, 'integrity_error') || record === undefined) throw error;
    // The former time is unknown, and was not later.
    return { takenOverMs: deps.clock.now(), seq: record.seq };
  }
  throw new AppError('storage_not_found');
}

/**
 * @returns the place in the chain up to which no release to the storage is live. @throws AppError
 *   `lease_live`.
 */
async function requireUnreleased({ store, clock }: KeyDeps, id: string): Promise<number> {
  const { seq } = await store.auditHead();
  const until = await liveUntil(clock, (from, page) => store.listStorageExports(id, from, page));
  if (until !== undefined) throw leaseLive(until);
  return seq;
}

/**
 * `present`: the storage already has the wanted state. Otherwise `next` replaces `before`, unless that has
 * changed.
 */
type Step =
  | { readonly present: RecordedStorage }
  | {
      readonly before: Pick<RecordedStorage, 'seq'> | undefined;
      readonly next: StorageState;
      readonly unreleasedSince?: number | undefined;
    };

async function change(
  { audit, clock }: KeyDeps,
  id: string,
  caller: Caller,
  action: 'storage.advance' | 'storage.take_over',
  decide: () => Promise<Step>,
): Promise<StorageInfo> {
  for (let round = 0; round < ROUNDS_MAX; round++) {
    const step = await decide();
    if ('present' in step) return infoOf(step.present, step.present.changedAt);
    const { before, next, unreleasedSince } = step;
    const time = new Date(clock.now()).toISOString();
    try {
      await audit.append(storageDraft({ caller, time }, action, next), {
        jti: caller.jti,
        storage: { id, seq: before?.seq, unreleasedSince },
      });
      return infoOf(next, time);
    } catch (error) {
      // Another writer was faster.
      if (!hasCode(error, 'precondition_failed')) throw error;
    }
  }
  throw new AppError('overloaded');
}

function infoOf({ id, generation, takenOverMs }: StorageState, advancedAt: string): StorageInfo {
  return {
    id,
    ...(generation === null ? {} : { generation }),
    taken_over_ms: takenOverMs,
    advanced_at: advancedAt,
  };
}
