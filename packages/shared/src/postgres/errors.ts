import pg from 'pg';

const DISK_FULL = '53100';
const READ_ONLY = '25006';
const LOCK_NOT_AVAILABLE = '55P03';
const QUERY_CANCELED = '57014';
/** Integrity constraint violation. */
const CONTRADICTION_CLASS = '23';
/** A number that is added to cannot be one that the service has written. */
const OUT_OF_RANGE = '22003';
/**
 * Error classes of a server or connection that is unavailable: connection, resources, operator intervention,
 * system.
 */
const UNAVAILABLE_CLASSES: readonly string[] = ['08', '53', '57', '58'];
/** Transaction rolled back (40…), lock not available, a standby instead of the primary, access revoked. */
const UNAVAILABLE_STATES: readonly string[] = [
  ...['40001', '40P01', '40003', LOCK_NOT_AVAILABLE, READ_ONLY],
  ...['28000', '28P01', '25P03'],
];
/**
 * Error classes of an unusable connection or server, including a broken configuration and internal errors.
 */
const CONNECTION_CLASSES: readonly string[] = ['08', '57', 'F0', 'XX'];

/** The SQLSTATE of a server error; undefined for all other errors, such as a broken connection. */
export function sqlStateOf(error: unknown): string | undefined {
  return error instanceof pg.DatabaseError ? error.code : undefined;
}

export function isDiskFull(error: unknown): boolean {
  return sqlStateOf(error) === DISK_FULL;
}

/** A statement was canceled by its timeout or by an operator. */
export function isCanceled(error: unknown): boolean {
  return sqlStateOf(error) === QUERY_CANCELED;
}

/** Waiting for a lock or a statement timed out. */
export function isTimeout(error: unknown): boolean {
  return isCanceled(error) || sqlStateOf(error) === LOCK_NOT_AVAILABLE;
}

/** Somebody has edited rows or restored older ones: a row violates a constraint, or a count overflows. */
export function isContradiction(error: unknown): boolean {
  const state = sqlStateOf(error);
  return state === OUT_OF_RANGE || state?.startsWith(CONTRADICTION_CLASS) === true;
}

/** The server is unavailable for now. The same work may be retried on another connection. */
export function isUnavailableState(error: unknown): boolean {
  const state = sqlStateOf(error);
  if (state === undefined || state === DISK_FULL) return false;
  return UNAVAILABLE_CLASSES.includes(state.slice(0, 2)) || UNAVAILABLE_STATES.includes(state);
}

/** The connection or the server failed, not a statement. Another connection or server may succeed. */
export function isConnectionState(error: unknown): boolean {
  const state = sqlStateOf(error);
  if (state === undefined || state === QUERY_CANCELED) return false;
  return state === READ_ONLY || CONNECTION_CLASSES.includes(state.slice(0, 2));
}
