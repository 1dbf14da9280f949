/** Where the database is and how long it is waited for. Times in milliseconds. */
export interface PostgresSettings {
  /** A name or an address. */
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  /** Neither this nor a file: the server asks for none. */
  readonly password?: string | undefined;
  /** Read for each connection, so that a password may be changed while the service runs. */
  readonly passwordFile?: string | undefined;
  /** The server's certificate must be for its name. False for plain TCP. */
  readonly tls: boolean;
  /** The authority of that certificate, PEM; those that Node trusts when absent. */
  readonly caFile?: string | undefined;
  /** Connections of this process; one of them is kept for writes. */
  readonly poolMax: number;
  readonly connectTimeoutMs: number;
  /** Of one statement, at the server. */
  readonly statementTimeoutMs: number;
  /** How long a write waits for its turn among those of all nodes. */
  readonly lockTimeoutMs: number;
  /** After this a node that stopped in the midst of a transaction holds up the others no longer. */
  readonly idleInTransactionTimeoutMs: number;
  /**
   * How long one operation may take, its wait for others, and trying again after a broken connection,
   * included.
   */
  readonly deadlineMs: number;
}

/** What a URL tells of {@link PostgresSettings}. */
export type PostgresPlace = Pick<
  PostgresSettings,
  'host' | 'port' | 'database' | 'user' | 'password' | 'tls'
>;

const PORT = 5_432;

/**
 * The place that `postgres://user[:password]@host[:port]/database[?sslmode=disable]` names; undefined for any
 * other text. TLS is the default but for this very machine, and there is nothing between it and none: a
 * server that is not verified may be anybody.
 */
export function placeOfUrl(text: string): PostgresPlace | undefined {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return undefined;
  }
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  const [user, password, database] = [url.username, url.password, url.pathname.slice(1)].map(decoded);
  const { sslmode, ...others } = Object.fromEntries(url.searchParams);
  const isKnown = ['postgres:', 'postgresql:'].includes(url.protocol) && Object.keys(others).length === 0;
  if (!isKnown || !host || !user || !database || database.includes('/') || url.hash !== '') return undefined;
  if (sslmode !== undefined && sslmode !== 'disable' && sslmode !== 'verify-full') return undefined;
  return {
    host,
    port: url.port === '' ? PORT : Number(url.port),
    database,
    user,
    password: password || undefined,
    tls: sslmode === undefined ? !isLoopback(host) : sslmode === 'verify-full',
  };
}

/** Whether a name or address is this very machine. */
function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}
