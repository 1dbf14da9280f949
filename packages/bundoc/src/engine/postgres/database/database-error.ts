import { AppError } from '@bundoc/shared/contract/app-error';
import {
  isCanceled,
  isContradiction,
  isDiskFull,
  isUnavailableState,
  sqlStateOf,
} from '@bundoc/shared/postgres/errors';

/**
 * True for an error that may concern a single statement, rather than the server or the connection: it failed
 * or was canceled. A full disk may concern one statement as well: others need less space.
 */
export function isOfStatement(error: unknown): boolean {
  if (!(error instanceof AppError)) return true;
  if (error.code !== 'storage_unavailable') return true;
  return isCanceled(error.cause);
}

/** True for an error of the server or the connection; false for errors of this process. */
export function isOfDatabase(error: unknown): boolean {
  return error instanceof ConnectionTrouble || sqlStateOf(error) !== undefined;
}

/** The connection broke, failed to open, or was abandoned because an answer was late. */
export class ConnectionTrouble extends Error {
  override readonly name = 'ConnectionTrouble';
}

/** The error for callers of the storage port. Defects are returned unchanged. */
export function storageErrorOf(error: unknown): unknown {
  if (isDiskFull(error)) return new AppError('disk_full', { cause: error });
  if (error instanceof ConnectionTrouble || isUnavailableState(error))
    return new AppError('storage_unavailable', { cause: error, retryAfterS: 1 });
  if (isContradiction(error)) return new AppError('integrity_error', { cause: error });
  return error;
}
