import { z } from 'zod';
import { wholeNumber } from '../process/config.ts';

/** A database, the user that connects to it, and the parameters of the connection. */
export interface PostgresAddress {
  /** A host name or an IP address. */
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  readonly password: string | undefined;
  /** `sslmode` of the URL; undefined when it has none. */
  readonly sslMode: 'disable' | 'verify-full' | undefined;
  /** `pooler=transaction`: each transaction may get another connection. */
  readonly isPooled: boolean;
  /** `connections`, the most of one process; undefined when the URL has none. */
  readonly connectionsMax: number | undefined;
  /** `timeout_ms`, from which a service derives its timeouts; undefined when the URL has none. */
  readonly timeoutMs: number | undefined;
}

/** The form of the URLs that {@link parseAddress} accepts, for messages. */
export const POSTGRES_URL_FORM =
  'postgres://user[:password]@host[:port]/database, with no parameters but sslmode (verify-full, disable), ' +
  'pooler (transaction), connections (3 to 500) and timeout_ms (200 to 60000)';

const PORT = 5_432;

const parameters = z.strictObject({
  sslmode: z.enum(['disable', 'verify-full']).optional(),
  pooler: z.literal('transaction').optional(),
  connections: wholeNumber(3, 500).optional(),
  timeout_ms: wholeNumber(200, 60_000).optional(),
});

/** Reads a URL of the form {@link POSTGRES_URL_FORM}. @returns undefined for any other text. */
export function parseAddress(text: string): PostgresAddress | undefined {
  const url = URL.parse(text);
  if (url === null || !['postgres:', 'postgresql:'].includes(url.protocol) || url.hash !== '')
    return undefined;
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  const [user, password, database] = [url.username, url.password, url.pathname.slice(1)].map(decoded);
  if (!host || !user || !database || database.includes('/')) return undefined;
  const given = Object.fromEntries(url.searchParams);
  const { data } = parameters.safeParse(given);
  // Of a doubled parameter, it would be unclear which one counts.
  if (data === undefined || Object.keys(given).length < url.searchParams.size) return undefined;
  return {
    host,
    port: url.port === '' ? PORT : Number(url.port),
    database,
    user,
    password: password || undefined,
    sslMode: data.sslmode,
    isPooled: data.pooler !== undefined,
    connectionsMax: data.connections,
    timeoutMs: data.timeout_ms,
  };
}

/** Whether a host name or address is this machine. */
export function isThisMachine(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
}

/** Host, port and database, for the log: without user and password. */
export function formatAddress({ host, port, database }: PostgresAddress): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}/${database}`;
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}
