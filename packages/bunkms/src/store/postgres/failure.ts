import { AppError } from '@bundoc/shared/contract/app-error';
import { isConnectionState, isDiskFull, sqlStateOf } from '@bundoc/shared/postgres/errors';
import { DatabaseError } from 'pg';
import { Untrusted } from '../trust.ts';

/** This server is a standby, or became one: its data may be stale. */
export class NotPrimary extends Error {
  override readonly name = 'NotPrimary';
  constructor() {
    super('the server is a standby: reads and writes need the primary');
  }
}

/**
 * The port's error for a failure of the database. The cause has the code and the message of the server, but
 * not its detail, which may quote stored values.
 */
export function storageError(error: unknown): AppError {
  if (error instanceof AppError) return error;
  if (error instanceof Untrusted) return new AppError('sealed', { cause: error });
  if (!(error instanceof DatabaseError)) return new AppError('storage_unavailable', { cause: error });
  const cause = new Error(`PostgreSQL ${error.code ?? ''}: ${error.message}`);
  return new AppError(isDiskFull(error) ? 'disk_full' : 'storage_unavailable', { cause });
}

/**
 * Whether a retry may succeed on a new connection or another server: the connection broke or could not be
 * opened.
 */
export function isConnectionFailure(error: unknown): boolean {
  if (error instanceof AppError || error instanceof Untrusted) return false;
  return sqlStateOf(error) === undefined || isConnectionState(error);
}

/** The error of operations that need the chain key before `unlock`. */
export function locked(): AppError {
  return new AppError('storage_unavailable', { cause: new Error('the audit chain is locked') });
}
