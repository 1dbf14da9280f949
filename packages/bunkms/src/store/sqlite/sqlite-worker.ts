/**
 * The thread that owns the database connection. SQLite blocks, and a hung disk must not block the thread that
 * answers requests. Requests are served one at a time, in order of arrival.
 */
import assert from 'node:assert/strict';
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { StoreOperations } from '../port.ts';
import { Untrusted } from '../trust.ts';
import { Connection } from './connection.ts';
import { sqliteOperations } from './operations.ts';
import { type TransferOperations, transferOperations } from './transfers.ts';
import type { WorkerFailure, WorkerReply, WorkerRequest } from './worker-rpc.ts';

export interface SqliteWorkerData {
  readonly path: string;
  readonly busyTimeoutMs: number;
}

const SQLITE_FULL = 13;
const SQLITE_AUTH = 23;
const TRIGGER_DENIED = 'a trigger or view in the database would have run';
/**
 * Look-ups that take microseconds. Their answers share one message, because a message costs more than a
 * look-up.
 */
const QUICK: ReadonlySet<string> = new Set<keyof StoreOperations>([
  'findActiveTokenFamily',
  'findKey',
  'lastChange',
]);

assert(!isMainThread && parentPort !== null, 'this module runs in a worker');
const port = parentPort;
const { path, busyTimeoutMs } = workerData as SqliteWorkerData;
let connection: Connection | undefined;
let operations: (StoreOperations & TransferOperations) | undefined;

/** Opens the store at the first request, so that a failure to open can be reported to a request. */
function opened(): StoreOperations & TransferOperations {
  connection ??= new Connection(path, busyTimeoutMs);
  operations ??= {
    ...sqliteOperations(connection),
    ...transferOperations(() => new Connection(path, busyTimeoutMs)),
  };
  return operations;
}

function serve(request: WorkerRequest): unknown {
  if (request.operation === 'close') {
    connection?.close();
    return undefined;
  }
  // Nobody waits for it any more, so it must not take effect now.
  if (process.hrtime.bigint() > request.expiresAtNs) throw new AppError('storage_unavailable');
  const operation = opened()[request.operation as keyof ReturnType<typeof opened>] as (
    ...args: unknown[]
  ) => unknown;
  return operation(...request.args);
}

function failureOf(error: unknown): WorkerFailure {
  if (error instanceof AppError) return { code: error.code, message: error.message };
  const { errcode, message } = error as { errcode?: number; message?: string };
  if (error instanceof Untrusted || errcode === SQLITE_AUTH)
    return { code: 'sealed', message: error instanceof Untrusted ? error.message : TRIGGER_DENIED };
  return { code: errcode === SQLITE_FULL ? 'disk_full' : 'storage_unavailable', message: String(message) };
}

port.on('message', (requests: readonly WorkerRequest[]) => {
  let replies: WorkerReply[] = [];
  const post = (): void => {
    if (replies.length > 0) port.postMessage(replies);
    replies = [];
  };
  for (const request of requests) {
    // Send the answers before longer work.
    if (!QUICK.has(request.operation)) post();
    replies.push(replyTo(request));
    if (request.operation === 'close') {
      post();
      port.close();
    }
  }
  post();
});

function replyTo(request: WorkerRequest): WorkerReply {
  try {
    return { id: request.id, value: serve(request) };
  } catch (error) {
    return { id: request.id, failure: failureOf(error) };
  }
}
