import type { KeyObject } from 'node:crypto';
import { join } from 'node:path';
import { AppError } from '@bundoc/shared/contract/app-error';
import { FIRST_FILES } from '@bundoc/shared/process/own-folder';
import { Thread } from '@bundoc/shared/threads/thread';
import type { KmsStore } from '../port.ts';
import type { LoadEntry, StoreEntry } from '../transfer.ts';
import type { SqliteOperations, SqliteWorkerData } from './sqlite-worker.ts';

export interface SqliteStoreOptions {
  /** The folder of the database. Created with mode 0700 if it does not exist. */
  readonly dataDir: string;
  /** Called once when the storage thread ends unexpectedly. From then on every call fails. */
  readonly onCrash: (error: Error) => void;
  /** How long one operation may take, including waits for others, milliseconds. */
  readonly deadlineMs: number;
}

/** Opening starts a thread, may create the schema, and may replay a write-ahead log. */
const OPEN_DEADLINE_MS = 15_000;
/** Deadline for the commit of a load, which writes everything to the disk. */
const COMMIT_LOAD_DEADLINE_MS = 600_000;
const PENDING_MAX = 1_024;

export function databasePathOf(dataDir: string): string {
  return join(dataDir, FIRST_FILES.BunKMS);
}

/**
 * Opens the store in SQLite (WAL, `synchronous=FULL`) in a separate thread. Several processes may have it
 * open.
 *
 * @throws AppError `storage_unavailable` when it cannot be opened.
 */
export async function openSqliteStore(options: SqliteStoreOptions): Promise<KmsStore> {
  const { deadlineMs } = options;
  // Below the deadline, so that callers get SQLite's busy error and no work happens after the deadline.
  const workerData: SqliteWorkerData = {
    path: databasePathOf(options.dataDir),
    busyTimeoutMs: Math.floor(deadlineMs * 0.75),
  };
  const thread = new Thread<SqliteOperations>({
    name: 'bunkms-sqlite',
    from: import.meta.url,
    module: './sqlite-worker',
    workerData,
    onCrash: options.onCrash,
    toFailure: (cause) => new AppError('storage_unavailable', { cause }),
  });
  const close = (): Promise<void> => thread.close(deadlineMs);
  try {
    const names = await callStore(thread, 'names', [], OPEN_DEADLINE_MS);
    const remote = remoteOperations(thread, names as SqliteNames, deadlineMs);
    await callStore(thread, 'probe', [], OPEN_DEADLINE_MS);
    return {
      ...remote,
      readAll: () => readAll(remote),
      load: (entries, chainKey) => load(remote, entries, chainKey),
      close,
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

type SqliteNames = readonly (keyof SqliteOperations)[];

/** The functions of the thread, as its caller sees them. */
type RemoteOperations = {
  readonly [Name in keyof SqliteOperations]: (
    ...args: Parameters<SqliteOperations[Name]>
  ) => Promise<ReturnType<SqliteOperations[Name]>>;
};

function remoteOperations(
  thread: Thread<SqliteOperations>,
  names: SqliteNames,
  deadlineMs: number,
): RemoteOperations {
  const remote = (name: keyof SqliteOperations) => {
    const ownMs = name === 'commitLoad' ? COMMIT_LOAD_DEADLINE_MS : deadlineMs;
    return (...args: readonly unknown[]) => callStore(thread, name, args, ownMs);
  };
  return Object.fromEntries(names.map((name) => [name, remote(name)])) as unknown as RemoteOperations;
}

/**
 * Calls a function in the thread of the store. After the deadline the thread continues, so the outcome of a
 * write is unknown.
 *
 * @throws AppError as the thread reports it, or `storage_unavailable`, `overloaded`.
 */
function callStore(
  thread: Thread<SqliteOperations>,
  name: keyof SqliteOperations,
  args: readonly unknown[],
  deadlineMs: number,
): Promise<unknown> {
  if (thread.pending >= PENDING_MAX) return Promise.reject(new AppError('overloaded'));
  return thread.call(name, args as never, { deadlineMs });
}

async function* readAll(remote: RemoteOperations): AsyncGenerator<readonly StoreEntry[]> {
  const transfer = await remote.beginReadAll();
  try {
    for (;;) {
      const batch = await remote.readMore(transfer);
      if (batch.length === 0) return;
      yield batch;
    }
  } finally {
    await remote.endTransfer(transfer).catch(() => undefined);
  }
}

async function load(
  remote: RemoteOperations,
  entries: AsyncIterable<readonly LoadEntry[]>,
  chainKey: KeyObject,
): Promise<boolean> {
  const transfer = await remote.beginLoad(chainKey);
  if (transfer === undefined) return false;
  try {
    for await (const batch of entries) await remote.loadMore(transfer, batch);
    await remote.commitLoad(transfer);
  } finally {
    await remote.endTransfer(transfer).catch(() => undefined);
  }
  await remote.unlock(chainKey);
  return true;
}
