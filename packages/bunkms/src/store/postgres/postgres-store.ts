import { AppError } from '@bundoc/shared/contract/app-error';
import { refusalIn } from '@bundoc/shared/postgres/refusal';
import { runOn } from '@bundoc/shared/postgres/run';
import { checkServer } from '@bundoc/shared/postgres/server-check';
import type { KmsStore } from '../port.ts';
import { createRepository } from '../sql/repository.ts';
import { postgresDialect } from './dialect.ts';
import { storageError } from './failure.ts';
import { type PostgresOperations, postgresOperations } from './operations.ts';
import { closed, Pools } from './pools.ts';
import { prepareSchema } from './schema.ts';
import type { PostgresSettings } from './settings.ts';
import { load, readAll } from './transfers.ts';
import { Writer } from './writer.ts';

export interface PostgresStoreOptions {
  readonly settings: PostgresSettings;
  /** Called with warnings about settings with which the server may lose acknowledged writes. */
  readonly warn: (message: string) => void;
}

/** Deadline of a scrub, because a VACUUM may take long. Only sweeps and destructions of keys wait for it. */
const SCRUB_DEADLINE_MS = 70_000;

/**
 * Opens the store in PostgreSQL (15 or newer), and creates its schema. Any number of nodes may have it open.
 *
 * @throws ConnectionRefused; AppError `storage_unavailable` when it cannot be opened: also for a standby, and
 *   for a schema of a newer release.
 */
export async function openPostgresStore({ settings, warn }: PostgresStoreOptions): Promise<KmsStore> {
  const pools = new Pools(settings);
  try {
    const client = await pools.borrow();
    try {
      const run = runOn(client);
      await prepareSchema(run);
      for (const warning of await checkServer(run, 'BUNKMS_STORAGE', Date.now())) warn(warning);
    } finally {
      client.release(true);
    }
  } catch (error) {
    await pools.close();
    throw refusalIn(error) ?? storageError(error);
  }
  return storeOf(pools, settings.deadlineMs);
}

function storeOf(pools: Pools, deadlineMs: number): KmsStore {
  const writer = new Writer(pools, deadlineMs);
  const repository = createRepository(postgresDialect(), () => writer.chainKey);
  let closing: Promise<void> | undefined;
  const close = () => {
    closing ??= writer.close().then(() => pools.close());
    return closing;
  };
  const inTime =
    (operation: (...args: never[]) => Promise<unknown>, ms: number) =>
    async (...args: never[]): Promise<unknown> => {
      if (closing !== undefined) throw closed();
      return await within(ms, operation(...args));
    };
  const bounded = Object.entries(postgresOperations(repository, pools, writer)).map(([name, operation]) => [
    name,
    inTime(operation, name === 'scrub' ? SCRUB_DEADLINE_MS : deadlineMs),
  ]);
  return {
    // Each wrapper has the type of its operation.
    ...(Object.fromEntries(bounded) as PostgresOperations),
    readAll: () => readAll(pools, repository),
    load: async (entries, chainKey) => {
      if (!(await load(pools, repository, entries, chainKey))) return false;
      writer.unlock(chainKey);
      return true;
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** Limits the wait for a result. The work itself continues, and each of its steps has a separate timeout. */
async function within<T>(ms: number, result: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    const cause = new Error(`PostgreSQL did not answer within ${ms} ms`);
    late.reject(new AppError('storage_unavailable', { cause }));
  }, ms);
  try {
    return await Promise.race([result, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
