import { randomUUID } from 'node:crypto';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { AppError, hasCode } from '@bundoc/shared/errors';
import {
  generationsOf,
  type StorageIdentity,
  withCandidate,
  withConfirmed,
} from '../identity/storage-file.ts';
import type { StorageGeneration } from '../identity/storage-generation.ts';
import type { ActingStorage, StorageCalls } from '../kms/port.ts';

/** A storage that a move gives a project to, or takes it from. */
export interface MovingStorage {
  readonly id: string;
  readonly calls: StorageCalls;
  /** In its present generation. @throws AppError `kms_unavailable`, `storage_superseded`. */
  acting(): ActingStorage;
  /** Brings it to a fresh generation: no call that was made before takes effect after it. @throws as {@link acting}. */
  advance(): Promise<ActingStorage>;
}

/** The storage of a service that runs. */
export function runningStorage(generation: StorageGeneration, calls: StorageCalls): MovingStorage {
  const acting = () => generation.acting();
  const advance = async () => {
    const { generation: former } = acting();
    await generation.advance();
    if (acting().generation === former) throw new AppError('kms_unavailable', { retryAfterS: 2 });
    return acting();
  };
  return { id: generation.id, calls, acting, advance };
}

/** A storage whose generation this process advances by itself, also beside nodes that run: a move is a start of its storages. */
export async function startStorage(identity: StorageIdentity, calls: StorageCalls): Promise<MovingStorage> {
  const { id } = await identity.read();
  const advance = async (): Promise<ActingStorage> => {
    const generation = randomUUID();
    const file = await identity.change((present) => withCandidate(present, generation));
    const from = generationsOf(file).filter((known) => known !== generation);
    const { take_overs: takeOvers } = await calls.advanceStorage(id, from, generation);
    await identity.change((present) => withConfirmed(present, generation, takeOvers));
    return { storage: id, generation };
  };
  let acting = await advance();
  return {
    id,
    calls,
    acting: () => acting,
    advance: async () => {
      acting = await advance();
      return acting;
    },
  };
}

/**
 * Makes sure that a move out of `source` does not take effect any more: no offer of an earlier generation is accepted, and the present one is withdrawn.
 *
 * @throws AppError `project_elsewhere` when it has taken effect; `project_unclaimed`; `project_moving` while BunKMS does not say.
 */
export async function settleMove(
  source: Pick<MovingStorage, 'calls' | 'advance'>,
  project: string,
  move: string,
): Promise<void> {
  try {
    await source.calls.withdrawOffer(dekNameOf(project), move, await source.advance());
  } catch (error) {
    if (hasCode(error, 'key_unheld')) throw new AppError('project_unclaimed', { cause: error });
    if (!hasCode(error, 'kms_unavailable', 'storage_unavailable')) throw error;
    throw new AppError('project_moving', { cause: error, retryAfterS: 2 });
  }
}

/**
 * Makes `to` the holder of the key. The offer is made in the generation that `from` had when the project was fenced, and never in a later one: by then somebody may
 * have ended the move.
 *
 * @throws AppError when it is not known whether it took effect.
 */
export async function handOver(
  from: MovingStorage,
  to: MovingStorage,
  project: string,
  { move, offering }: { readonly move: string; readonly offering: ActingStorage },
): Promise<void> {
  const name = dekNameOf(project);
  await from.calls.offerKey(name, to.id, move, offering);
  await to.calls.acceptKey(name, move, to.acting());
}
