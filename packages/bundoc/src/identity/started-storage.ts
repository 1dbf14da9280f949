import { randomUUID } from 'node:crypto';
import type { ActingStorage, StorageCalls } from '../kms/port.ts';
import { generationsOf, type StorageIdentity, withCandidate, withConfirmed } from './storage-file.ts';
import type { StorageGeneration } from './storage-generation.ts';

/** A storage that this process acts for at BunKMS. */
export interface StartedStorage {
  readonly id: string;
  readonly calls: StorageCalls;
  /** In its present generation. @throws AppError `kms_unavailable`, `storage_superseded`. */
  acting(): ActingStorage;
  /** Brings it to a fresh generation: no call that was made before takes effect after it. @throws as {@link acting}. */
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

/** A storage whose generation this process advances by itself, also beside nodes that run: a move is a start of its storages. */
export async function startStorage(identity: StorageIdentity, calls: StorageCalls): Promise<StartedStorage> {
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
