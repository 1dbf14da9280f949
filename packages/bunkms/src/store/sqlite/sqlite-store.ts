import type { KeyObject } from 'node:crypto';
import { join } from 'node:path';
import { AppError } from '@bundoc/shared/contract/app-error';
import { Thread, ThreadFailed } from '@bundoc/shared/threads/thread';
import type { KmsStore, StoreOperations } from '../port.ts';
import type { LoadEntry, StoreEntry } from '../transfer.ts';
import type { SqliteOperations, SqliteWorkerData } from './sqlite-worker.ts';
import type { TransferOperations } from './transfers.ts';

export interface SqliteStoreOptions {
  /** The folder of the database. Created with mode 0700 if it does not exist. */
  readonly dataDir: string;
  /** Called once when the storage thread ends unexpectedly. From then on every call fails. */
  readonly onCrash: (error: Error) => void;
  /** How long one operation may take, including waits for others, milliseconds. */
  readonly deadlineMs: number;
}

/** Opening starts a thread, may migrate the schema, and may replay a write-ahead log. */
const OPEN_DEADLINE_MS = 15_000;
/** Deadline for the commit of a load, which writes everything to the disk. */
const COMMIT_LOAD_DEADLINE_MS = 600_000;
const PENDING_MAX = 1_024;

export function databasePathOf(dataDir: string): string {
  return join(dataDir, 'bunkms.sqlite');
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
  });
  const store = remoteStore(thread, deadlineMs);
  try {
    await callStore(thread, 'probe', [], OPEN_DEADLINE_MS);
  } catch (error) {
    await store.close();
    throw error;
  }
  return store;
}

/**
 * Calls a function in the thread of the store. After the deadline the thread continues, so the outcome of a
 * write is unknown.
 *
 * @throws AppError as the thread reports it, or `storage_unavailable`, `overloaded`.
 */
async function callStore(
  thread: Thread<SqliteOperations>,
  name: keyof SqliteOperations,
  args: readonly unknown[],
  deadlineMs: number,
): Promise<unknown> {
  if (thread.pending >= PENDING_MAX) throw new AppError('overloaded');
  try {
    return await thread.call(name, args as never, { deadlineMs });
  } catch (error) {
    if (error instanceof ThreadFailed) throw new AppError('storage_unavailable', { cause: error });
    throw error;
  }
}

function remoteStore(thread: Thread<SqliteOperations>, deadlineMs: number): KmsStore {
  /**
   * Both sides have the types of the port: `sqlite/operations.ts` implements it, and this forwards calls to
   * it.
   */
  const remote =
    <Name extends keyof StoreOperations>(name: Name) =>
    (...args: Parameters<KmsStore[Name]>) =>
      callStore(thread, name, args, deadlineMs) as ReturnType<KmsStore[Name]>;
  const transfer: Transfer =
    (name, ownDeadlineMs = deadlineMs) =>
    (...args) =>
      callStore(thread, name, args, ownDeadlineMs) as never;
  return {
    readInstallation: remote('readInstallation'),
    initialise: remote('initialise'),
    unlock: remote('unlock'),
    addKek: remote('addKek'),
    kekRecords: remote('kekRecords'),
    kekUses: remote('kekUses'),
    countNotWrappedBy: remote('countNotWrappedBy'),
    listWrapped: remote('listWrapped'),
    replaceSecrets: remote('replaceSecrets'),
    claim: remote('claim'),
    announce: remote('announce'),
    withdraw: remote('withdraw'),
    release: remote('release'),
    insertKey: remote('insertKey'),
    findKey: remote('findKey'),
    lastChange: remote('lastChange'),
    updateKey: remote('updateKey'),
    updateKeys: remote('updateKeys'),
    replaceKey: remote('replaceKey'),
    listKeys: remote('listKeys'),
    listDueKeys: remote('listDueKeys'),
    scrub: remote('scrub'),
    insertToken: remote('insertToken'),
    renewToken: remote('renewToken'),
    findToken: remote('findToken'),
    findTokens: remote('findTokens'),
    findActiveTokenFamily: remote('findActiveTokenFamily'),
    listTokens: remote('listTokens'),
    revokeFamilies: remote('revokeFamilies'),
    listIssues: remote('listIssues'),
    listRevoked: remote('listRevoked'),
    pruneTokens: remote('pruneTokens'),
    appendAudit: remote('appendAudit'),
    appendAuditOnce: remote('appendAuditOnce'),
    listAudit: remote('listAudit'),
    listExports: remote('listExports'),
    listStorageExports: remote('listStorageExports'),
    storageRecord: remote('storageRecord'),
    listDeletions: remote('listDeletions'),
    countDeletions: remote('countDeletions'),
    listStaleCopies: remote('listStaleCopies'),
    auditHead: remote('auditHead'),
    recordsAt: remote('recordsAt'),
    latestRestore: remote('latestRestore'),
    brokenLink: remote('brokenLink'),
    foreignObjects: remote('foreignObjects'),
    expectHead: remote('expectHead'),
    readAll: () => readAll(transfer),
    load: async (entries, chainKey) => {
      if (!(await load(transfer, entries, chainKey))) return false;
      await callStore(thread, 'unlock', [chainKey], deadlineMs);
      return true;
    },
    counts: remote('counts'),
    probe: remote('probe'),
    close: () => thread.close(deadlineMs),
    [Symbol.asyncDispose]: () => thread.close(deadlineMs),
  };
}

/** Calls a {@link TransferOperations} method in the thread of the store. */
type Transfer = <Name extends keyof TransferOperations>(
  name: Name,
  deadlineMs?: number,
) => (...args: Parameters<TransferOperations[Name]>) => Promise<ReturnType<TransferOperations[Name]>>;

async function* readAll(call: Transfer): AsyncGenerator<readonly StoreEntry[]> {
  const transfer = await call('beginReadAll')();
  try {
    for (;;) {
      const batch = await call('readMore')(transfer);
      if (batch.length === 0) return;
      yield batch;
    }
  } finally {
    await call('endTransfer')(transfer).catch(() => undefined);
  }
}

async function load(
  call: Transfer,
  entries: AsyncIterable<readonly LoadEntry[]>,
  chainKey: KeyObject,
): Promise<boolean> {
  const transfer = await call('beginLoad')(chainKey);
  if (transfer === undefined) return false;
  try {
    for await (const batch of entries) await call('loadMore')(transfer, batch);
    await call('commitLoad', COMMIT_LOAD_DEADLINE_MS)(transfer);
    return true;
  } finally {
    await call('endTransfer')(transfer).catch(() => undefined);
  }
}
