import type { KeyObject } from 'node:crypto';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { KmsStore, StoreOperations } from '../port.ts';
import type { LoadEntry, StoreEntry } from '../transfer.ts';
import type { SqliteWorkerData } from './sqlite-worker.ts';
import type { TransferOperations } from './transfers.ts';
import { WorkerRpc } from './worker-rpc.ts';

export interface SqliteStoreOptions {
  /** The folder of the database; made, mode 0700, if it is not there. */
  readonly dataDir: string;
  /** Told once when the storage thread ends by itself; every call fails from then on. */
  readonly onCrash: (error: Error) => void;
  /** How long one operation may take, its wait for others included, milliseconds. */
  readonly deadlineMs: number;
}

/** Opening starts a thread, may migrate the schema, and may replay a write-ahead log. */
const OPEN_DEADLINE_MS = 15_000;
/** Everything that was loaded goes to the disk at once. */
const COMMIT_LOAD_DEADLINE_MS = 600_000;
const PENDING_MAX = 1_024;

export function databasePathOf(dataDir: string): string {
  return join(dataDir, 'bunkms.sqlite');
}

/**
 * Opens the store in SQLite (WAL, `synchronous=FULL`), in a thread of its own. Several processes may have it
 * open.
 *
 * @throws AppError `storage_unavailable` when it cannot be opened.
 */
export async function openSqliteStore(options: SqliteStoreOptions): Promise<KmsStore> {
  const { deadlineMs } = options;
  // Below the deadline, so that a caller learns from SQLite that another process is writing, and nothing is
  // done late.
  const workerData: SqliteWorkerData = {
    path: databasePathOf(options.dataDir),
    busyTimeoutMs: Math.floor(deadlineMs * 0.75),
  };
  const fromSource = import.meta.url.endsWith('.ts');
  const worker = new Worker(new URL(`./sqlite-worker.${fromSource ? 'ts' : 'js'}`, import.meta.url), {
    name: 'bunkms-sqlite',
    workerData,
    // The thread needs nothing of the environment, and the environment may hold the KEK.
    env: {},
    execArgv: fromSource ? ['--conditions=@bundoc/source', '--disable-warning=ExperimentalWarning'] : [],
  });
  const rpc = new WorkerRpc(worker, { deadlineMs, pendingMax: PENDING_MAX, onCrash: options.onCrash });
  try {
    await rpc.call('probe', [], OPEN_DEADLINE_MS);
  } catch (error) {
    await rpc.close();
    throw error;
  }
  return remoteStore(rpc);
}

function remoteStore(rpc: WorkerRpc): KmsStore {
  /**
   * The types are those of the port on both sides: `sqlite/operations.ts` implements it, this passes it on.
   */
  const remote =
    <Name extends keyof StoreOperations>(name: Name, deadlineMs?: number) =>
    (...args: Parameters<KmsStore[Name]>) =>
      rpc.call(name, args, deadlineMs) as ReturnType<KmsStore[Name]>;
  const transfer: Transfer =
    (name, deadlineMs) =>
    (...args) =>
      rpc.call(name, args, deadlineMs) as never;
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
    readAll: () => readAll(transfer),
    load: async (entries, chainKey) => {
      if (!(await load(transfer, entries, chainKey))) return false;
      await rpc.call('unlock', [chainKey]);
      return true;
    },
    counts: remote('counts'),
    probe: remote('probe'),
    close: () => rpc.close(),
    [Symbol.asyncDispose]: () => rpc.close(),
  };
}

/** Calls of {@link TransferOperations}, as the thread of the store serves them. */
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
