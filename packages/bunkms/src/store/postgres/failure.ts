import { AppError } from '@bundoc/shared/contract/app-error';
import { DatabaseError } from 'pg';

/**
 * SQLSTATE of a full disk, and classes and codes after which the connection, or the server behind it, is of
 * no use.
 */
const DISK_FULL = '53100';
const CONNECTION_CLASSES = ['08', '57', 'F0', 'XX'];
const READ_ONLY = '25006';
const LOCK_NOT_AVAILABLE = '55P03';
const QUERY_CANCELED = '57014';

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
  return new AppError(error.code === DISK_FULL ? 'disk_full' : 'storage_unavailable', { cause });
}

/**
 * Whether a server that is there, or takes over, may well do what this one did not: the connection broke, or
 * there is none.
 */
export function isConnectionFailure(error: unknown): boolean {
  if (error instanceof AppError) return false;
  if (!(error instanceof DatabaseError)) return true;
  const code = error.code ?? '';
  if (code === QUERY_CANCELED) return false;
  return code === READ_ONLY || CONNECTION_CLASSES.some((one) => code.startsWith(one));
}

/** Whether others kept what was asked for longer than was waited for it. */
export function isTimeout(error: unknown): boolean {
  return (
    error instanceof DatabaseError && (error.code === LOCK_NOT_AVAILABLE || error.code === QUERY_CANCELED)
  );
}

/** The error of what needs the key of the chain before the store has it. */
export function locked(): AppError {
  return new AppError('storage_unavailable', { cause: new Error('the audit chain is locked') });
}
