import { AppError } from '@bundoc/shared/contract/app-error';
import {
  isCanceled,
  isContradiction,
  isDiskFull,
  isUnavailableState,
  sqlStateOf,
} from '@bundoc/shared/postgres/errors';

/**
 * True for an error of callers that may be of one statement, and not of the server or its connection: it
 * failed, or took longer than the server gives it. A full disk may be of one statement as well: others need
 * less of it.
 */
export function isOfStatement(error: unknown): boolean {
  if (!(error instanceof AppError)) return true;
  if (error.code !== 'storage_unavailable') return true;
  return isCanceled(error.cause);
}

/** True for what a statement was answered, or that it was not; false for all that goes wrong on this side. */
export function isOfDatabase(error: unknown): boolean {
  return error instanceof ConnectionTrouble || sqlStateOf(error) !== undefined;
}

/** The connection broke, could not be made, or was given up because an answer did not come in time. */
export class ConnectionTrouble extends Error {
  override readonly name = 'ConnectionTrouble';
}

/** The error for callers of the storage port. Defects stay what they are. */
export function storageErrorOf(error: unknown): unknown {
  if (isDiskFull(error)) return new AppError('disk_full', { cause: error });
  if (error instanceof ConnectionTrouble || isUnavailableState(error))
    return new AppError('storage_unavailable', { cause: error, retryAfterS: 1 });
  if (isContradiction(error)) return new AppError('integrity_error', { cause: error });
  return error;
}
