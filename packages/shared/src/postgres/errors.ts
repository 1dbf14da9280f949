import pg from 'pg';

const DISK_FULL = '53100';
const READ_ONLY = '25006';
const LOCK_NOT_AVAILABLE = '55P03';
const QUERY_CANCELED = '57014';
/** A row contradicts others. */
const CONTRADICTION_CLASS = '23';
/**
 * Classes of a server, or a connection, that cannot serve at the moment: connection, resources,
 * intervention, system.
 */
const UNAVAILABLE_CLASSES: readonly string[] = ['08', '53', '57', '58'];
/**
 * Transaction rolled back (40…), lock not available, a standby where the primary was expected, no longer
 * allowed in.
 */
const UNAVAILABLE_STATES: readonly string[] = [
  ...['40001', '40P01', '40003', LOCK_NOT_AVAILABLE, READ_ONLY],
  ...['28000', '28P01', '25P03'],
];
/**
 * Classes of a connection, or the server behind it, that is unusable: also a broken configuration, and an
 * internal error.
 */
const CONNECTION_CLASSES: readonly string[] = ['08', '57', 'F0', 'XX'];

/** The SQLSTATE of a server's refusal; undefined for everything else, such as a broken connection. */
export function sqlStateOf(error: unknown): string | undefined {
  return error instanceof pg.DatabaseError ? error.code : undefined;
}

export function isDiskFull(error: unknown): boolean {
  return sqlStateOf(error) === DISK_FULL;
}

/** A statement was canceled by its timeout, or by somebody. */
export function isCanceled(error: unknown): boolean {
  return sqlStateOf(error) === QUERY_CANCELED;
}

/** Others kept what was asked for longer than was waited for it. */
export function isTimeout(error: unknown): boolean {
  return isCanceled(error) || sqlStateOf(error) === LOCK_NOT_AVAILABLE;
}

/** A row contradicts others: somebody has edited rows, or put older ones back. */
export function isContradiction(error: unknown): boolean {
  return sqlStateOf(error)?.startsWith(CONTRADICTION_CLASS) === true;
}

/** The server refused because it cannot serve now: the same may be tried again, on another connection. */
export function isUnavailableState(error: unknown): boolean {
  const state = sqlStateOf(error);
  if (state === undefined || state === DISK_FULL) return false;
  return UNAVAILABLE_CLASSES.includes(state.slice(0, 2)) || UNAVAILABLE_STATES.includes(state);
}

/**
 * Another server, or another connection, may do what this one did not: it refused as a whole, and not a
 * statement of ours.
 */
export function isConnectionState(error: unknown): boolean {
  const state = sqlStateOf(error);
  if (state === undefined || state === QUERY_CANCELED) return false;
  return state === READ_ONLY || CONNECTION_CLASSES.includes(state.slice(0, 2));
}
