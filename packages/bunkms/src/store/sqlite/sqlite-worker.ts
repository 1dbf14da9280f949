/**
 * The thread that owns the database connection. SQLite blocks, and a hung disk must not block the thread that
 * answers requests. Requests are served one at a time, in order of arrival.
 */
import { workerData } from 'node:worker_threads';
import { AppError } from '@bundoc/shared/contract/app-error';
import { serveCalls } from '@bundoc/shared/threads/serve-calls';
import type { StoreOperations } from '../port.ts';
import { Untrusted } from '../trust.ts';
import { Connection } from './connection.ts';
import { sqliteOperations } from './operations.ts';
import { type TransferOperations, transferOperations } from './transfers.ts';

/** The functions that the thread serves. */
export interface SqliteOperations extends StoreOperations, TransferOperations {
  /** The names of all functions. The caller's side is built from them. */
  names(): readonly string[];
}

export interface SqliteWorkerData {
  readonly path: string;
  readonly busyTimeoutMs: number;
}

const SQLITE_FULL = 13;
const SQLITE_AUTH = 23;
const TRIGGER_DENIED = 'a trigger or view in the database would have run';
/** Look-ups that take microseconds. */
const QUICK: ReadonlySet<string> = new Set<keyof StoreOperations>([
  'findActiveTokenFamily',
  'findKey',
  'lastChange',
]);

const { path, busyTimeoutMs } = workerData as SqliteWorkerData;
let connection: Connection | undefined;
let operations: SqliteOperations | undefined;

serveCalls(opened, { quick: QUICK, toError: refusalOf, onClose: () => connection?.close() });

/** Opens the store at the first call, so that a failure to open is its answer. */
function opened(): SqliteOperations {
  connection ??= new Connection(path, busyTimeoutMs);
  operations ??= {
    ...sqliteOperations(connection),
    ...transferOperations(() => new Connection(path, busyTimeoutMs)),
    names: () => Object.keys(opened()),
  };
  return operations;
}

function refusalOf(error: unknown): AppError {
  if (error instanceof AppError) return error;
  const { errcode, message } = error as { errcode?: number; message?: string };
  const code = errcode === SQLITE_FULL ? 'disk_full' : 'storage_unavailable';
  if (error instanceof Untrusted || errcode === SQLITE_AUTH)
    return new AppError('sealed', {
      cause: error instanceof Untrusted ? error : new Error(TRIGGER_DENIED),
    });
  return new AppError(code, { cause: new Error(String(message)) });
}
