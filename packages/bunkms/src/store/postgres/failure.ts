import { AppError } from '@bundoc/shared/contract/app-error';
import { isConnectionState, isDiskFull, sqlStateOf } from '@bundoc/shared/postgres/errors';
import { DatabaseError } from 'pg';

/** This server is a standby, or was made one: what it says may be old. */
export class NotPrimary extends Error {
  override readonly name = 'NotPrimary';
  constructor() {
    super('the server is a standby: reads and writes go to the primary alone');
  }
}

/**
 * What the port throws for a failure of the database. The cause names the code and the server's message, and
 * not its detail, which may repeat stored values.
 */
export function storageError(error: unknown): AppError {
  if (error instanceof AppError) return error;
  if (!(error instanceof DatabaseError)) return new AppError('storage_unavailable', { cause: error });
  const cause = new Error(`PostgreSQL ${error.code ?? ''}: ${error.message}`);
  return new AppError(isDiskFull(error) ? 'disk_full' : 'storage_unavailable', { cause });
}

/**
 * Whether a server that is there, or takes over, may well do what this one did not: the connection broke, or
 * there is none.
 */
export function isConnectionFailure(error: unknown): boolean {
  if (error instanceof AppError) return false;
  return sqlStateOf(error) === undefined || isConnectionState(error);
}

/** The error of what needs the key of the chain before the store has it. */
export function locked(): AppError {
  return new AppError('storage_unavailable', { cause: new Error('the audit chain is locked') });
}
