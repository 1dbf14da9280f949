import { randomUUID } from 'node:crypto';
import { hasCode } from '@bundoc/shared/contract/app-error';
import type { ActingStorage, StorageCalls } from '../kms/port.ts';
import {
  ADVANCE_TRIES_MAX,
  generationsOf,
  type StorageIdentity,
  withCandidate,
  withConfirmed,
} from './storage-file.ts';
import type { StorageGeneration } from './storage-generation.ts';

/** A storage that this process acts for at BunKMS. */
export interface StartedStorage {
  readonly id: string;
  readonly calls: StorageCalls;
  /** In its present generation. @throws AppError `kms_unavailable`, `storage_superseded`. */
  acting(): ActingStorage;
  /**
   * Brings it to a fresh generation: no call that was made before takes effect after it. @throws as
   * {@link acting}.
   */
  advance(): Promise<ActingStorage>;
}

/** The storage of a service that runs. */
export function runningStorage(generation: StorageGeneration, calls: StorageCalls): StartedStorage {
  const acting = () => generation.acting();
  const advance = async () => {
    await generation.advance();
    return acting();
  };
  return { id: generation.id, calls, acting, advance };
}

/**
 * Brings a storage to a fresh generation, also beside nodes that run: after another one was faster, it
 * follows that one.
 *
 * @throws AppError `storage_superseded` when BunKMS has a generation that the storage does not know; those of
 * BunKMS and of the storage.
 */
export async function advanceStorage(
  identity: StorageIdentity,
  calls: Pick<StorageCalls, 'advanceStorage'>,
): Promise<ActingStorage> {
  const { id } = await identity.read();
  for (let tries = 1; ; tries++) {
    const generation = randomUUID();
    const file = await identity.change((present) => withCandidate(present, generation));
    const from = generationsOf(file).filter((known) => known !== generation);
    try {
      const { take_overs: takeOvers } = await calls.advanceStorage(id, from, generation);
      await identity.change((present) => withConfirmed(present, generation, takeOvers));
      return { storage: id, generation };
    } catch (error) {
      if (!hasCode(error, 'storage_superseded') || tries === ADVANCE_TRIES_MAX) throw error;
      // What BunKMS has is noted before BunKMS has it, and an earlier note was named.
      const noted = generationsOf(await identity.read());
      if (noted.every((known) => known === generation || from.includes(known))) throw error;
    }
  }
}

/**
 * A storage whose generation this process advances by itself, also beside nodes that run: a move is a start
 * of its storages.
 */
export async function startStorage(identity: StorageIdentity, calls: StorageCalls): Promise<StartedStorage> {
  let acting = await advanceStorage(identity, calls);
  return {
    id: acting.storage,
    calls,
    acting: () => acting,
    advance: async () => {
      acting = await advanceStorage(identity, calls);
      return acting;
    },
  };
}
