/** A database and the user that connects to it. */
export interface PostgresAddress {
  /** A host name or an IP address. */
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  readonly password: string | undefined;
  /** `sslmode` of the URL; undefined when it has none. */
  readonly sslMode: 'disable' | 'verify-full' | undefined;
}

/** The form of the URLs that {@link parseAddress} accepts, for messages. */
export const POSTGRES_URL_FORM =
  'postgres://user[:password]@host[:port]/database[?sslmode=verify-full|disable]';

const PORT = 5_432;

/** Reads a URL of the form {@link POSTGRES_URL_FORM}. @returns undefined for any other text. */
export function parseAddress(text: string): PostgresAddress | undefined {
  const url = URL.parse(text);
  if (url === null || !['postgres:', 'postgresql:'].includes(url.protocol) || url.hash !== '')
    return undefined;
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  const [user, password, database] = [url.username, url.password, url.pathname.slice(1)].map(decoded);
  if (!host || !user || !database || database.includes('/')) return undefined;
  const { sslmode: sslMode, ...others } = Object.fromEntries(url.searchParams);
  if (Object.keys(others).length > 0) return undefined;
  if (sslMode !== undefined && sslMode !== 'disable' && sslMode !== 'verify-full') return undefined;
  return {
    host,
    port: url.port === '' ? PORT : Number(url.port),
    database,
    user,
    password: password || undefined,
    sslMode,
  };
}

/** Whether a host name or address is this machine. */
export function isThisMachine(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
}

/** Host, port and database, for the log: without user and password. */
export function placeOf({ host, port, database }: PostgresAddress): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}/${database}`;
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}
