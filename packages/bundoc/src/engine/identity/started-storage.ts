import { randomUUID } from 'node:crypto';
import { hasCode } from '@bundoc/shared/contract/app-error';
import type { ActingStorage, StorageCalls } from '../../kms/port.ts';
import {
  ADVANCE_TRIES_MAX,
  generationsOf,
  type StorageIdentity,
  withCandidate,
  withConfirmed,
} from './storage-file.ts';
import type { StorageGeneration } from './storage-generation.ts';

/** A storage in its current generation, and its last take-over. */
interface AdvancedStorage {
  readonly acting: ActingStorage;
  readonly takenOverMs: number;
}

/** A storage on whose behalf this process calls BunKMS. */
export interface StartedStorage {
  readonly id: string;
  readonly calls: StorageCalls;
  /** The storage in its current generation. @throws AppError `kms_unavailable`, `storage_superseded`. */
  acting(): ActingStorage;
  /** Starts a new generation: no earlier call takes effect after it. @throws as {@link acting}. */
  advance(): Promise<ActingStorage>;
}

/** The storage of a running service. */
export function runningStorage(generation: StorageGeneration, calls: StorageCalls): StartedStorage {
  const acting = () => generation.acting();
  const advance = async () => {
    await generation.advance();
    return acting();
  };
  return { id: generation.id, calls, acting, advance };
}

/**
 * Starts a new generation of a storage, also beside running nodes: if another node was faster, it follows
 * that node's generation.
 *
 * @throws AppError `storage_superseded` when BunKMS has a generation that the storage does not know; those of
 *   BunKMS and of the storage.
 */
export async function advanceStorage(
  identity: StorageIdentity,
  calls: Pick<StorageCalls, 'advanceStorage'>,
): Promise<AdvancedStorage> {
  const { id } = await identity.read();
  for (let tries = 1; ; tries++) {
    const generation = randomUUID();
    const file = await identity.change((present) => withCandidate(present, generation));
    const from = generationsOf(file).filter((known) => known !== generation);
    try {
      const { taken_over_ms: takenOverMs } = await calls.advanceStorage(id, from, generation);
      // The last known take-over stays: the next start of the service still looks for lost projects.
      await identity.change((present) => withConfirmed(present, generation));
      return { acting: { storage: id, generation }, takenOverMs };
    } catch (error) {
      if (!hasCode(error, 'storage_superseded') || tries === ADVANCE_TRIES_MAX) throw error;
      // A generation is recorded before BunKMS has it, and this call named all earlier ones.
      const noted = generationsOf(await identity.read());
      if (noted.every((known) => known === generation || from.includes(known))) throw error;
    }
  }
}

/**
 * Returns a storage whose generation this process advances, also beside running nodes: a move counts as a
 * start of its storages.
 */
export async function startStorage(
  identity: StorageIdentity,
  calls: StorageCalls,
): Promise<StartedStorage & Pick<AdvancedStorage, 'takenOverMs'>> {
  const { takenOverMs, ...started } = await advanceStorage(identity, calls);
  let { acting } = started;
  return {
    takenOverMs,
    id: acting.storage,
    calls,
    acting: () => acting,
    advance: async () => {
      ({ acting } = await advanceStorage(identity, calls));
      return acting;
    },
  };
}
