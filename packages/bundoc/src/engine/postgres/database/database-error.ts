import { AppError } from '@bundoc/shared/contract/app-error';
import pg from 'pg';

const { DatabaseError } = pg;

const DISK_FULL = '53100';
/** By its timeout, or by somebody. */
const STATEMENT_CANCELED = '57014';
/** SQLSTATE class of a row that contradicts others: somebody has edited them, or put older ones back. */
const CONTRADICTION_CLASS = '23';
/**
 * SQLSTATE classes of a server, or a connection, that cannot serve at the moment: connection, resources,
 * intervention, system.
 */
const UNAVAILABLE_CLASSES: readonly string[] = ['08', '53', '57', '58'];
/**
 * Transaction rolled back (40…), lock not available, a standby where the primary was expected, no longer
 * allowed in.
 */
const UNAVAILABLE_CODES: readonly string[] = [
  '40001',
  '40P01',
  '40003',
  '55P03',
  '25006',
  '28000',
  '28P01',
  '25P03',
];

/** The SQLSTATE of a server's refusal; undefined for everything else, such as a broken connection. */
function sqlStateOf(error: unknown): string | undefined {
  return error instanceof DatabaseError ? error.code : undefined;
}

/**
 * True when the server did not answer, or answered that it cannot serve now: the same may be tried again, on
 * another connection. All other refusals of the server are defects of ours.
 */
function isUnavailable(error: unknown): boolean {
  const state = sqlStateOf(error);
  if (state !== undefined)
    return UNAVAILABLE_CLASSES.includes(state.slice(0, 2))
      ? state !== DISK_FULL
      : UNAVAILABLE_CODES.includes(state);
  return error instanceof ConnectionTrouble;
}

/**
 * True for an error of callers that may be of one statement, and not of the server or its connection: it
 * failed, or took longer than the server gives it. A full disk may be of one statement as well: others need
 * less of it.
 */
export function isOfStatement(error: unknown): boolean {
  if (!(error instanceof AppError)) return true;
  if (error.code !== 'storage_unavailable') return true;
  return sqlStateOf(error.cause) === STATEMENT_CANCELED;
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
  if (sqlStateOf(error) === DISK_FULL) return new AppError('disk_full', { cause: error });
  if (isUnavailable(error)) return new AppError('storage_unavailable', { cause: error, retryAfterS: 1 });
  if (sqlStateOf(error)?.startsWith(CONTRADICTION_CLASS))
    return new AppError('integrity_error', { cause: error });
  return error;
}
