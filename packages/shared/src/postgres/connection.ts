import { checkServerIdentity } from 'node:tls';
import pg from 'pg';
import { ConfigError, readSecretFile } from '../runtime/config.ts';
import { type NamedFile, readTlsMaterial } from '../tls/files.ts';
import { isThisMachine, type PostgresAddress } from './address.ts';

/** How to connect. Times in milliseconds. */
export interface ConnectionSettings {
  readonly address: PostgresAddress;
  /**
   * Read for each connection, so that a password may change while the service runs; the URL's password when
   * absent.
   */
  readonly passwordFile?: NamedFile | undefined;
  /** The authority of the server's certificate, PEM; those that Node trusts when absent. */
  readonly caFile?: NamedFile | undefined;
  /** How long a connection may take to be made, or to become free. */
  readonly connectTimeoutMs: number;
  /** After which the server gives a statement up. */
  readonly statementTimeoutMs: number;
  /**
   * How much longer than the server this side waits for a statement: the server's own answer is better than
   * none.
   */
  readonly answerSlackMs: number;
  /** What the server calls this client. */
  readonly applicationName: string;
}

const IDLE_MS = 60_000;

/**
 * Whether the connection is made by TLS, with a server whose certificate is verified. It is unless
 * `sslmode` is `disable`, or the server runs on this machine and neither `sslmode` nor a CA file requires
 * TLS. There is no TLS without verification, because anyone can run an unverified server.
 */
export function usesTls({ address, caFile }: Pick<ConnectionSettings, 'address' | 'caFile'>): boolean {
  const { sslMode, host } = address;
  return sslMode === undefined ? caFile !== undefined || !isThisMachine(host) : sslMode === 'verify-full';
}

/** How the driver makes one connection. @throws ConfigError for files that cannot be used. */
export function clientConfig(settings: ConnectionSettings): pg.ClientConfig {
  const { address, passwordFile, caFile } = settings;
  const { host, port, database, user } = address;
  const isTls = usesTls(settings);
  if (caFile !== undefined && !isTls)
    throw new ConfigError([`${caFile.variable}: is for TLS, and sslmode is disable`]);
  const ca = caFile && readTlsMaterial({ ca: caFile }).ca;
  if (passwordFile !== undefined) readSecretFile(passwordFile.variable, passwordFile.path);
  const password =
    passwordFile === undefined
      ? address.password
      : () => readSecretFile(passwordFile.variable, passwordFile.path);
  return {
    // Part by part: what a URL says would go before all else.
    ...{ host, port, database, user },
    ...(password === undefined ? {} : { password }),
    ssl: isTls && {
      ...(ca === undefined ? {} : { ca }),
      rejectUnauthorized: true,
      // The driver passes names on to Node, and no addresses: Node would look for "localhost" in the place
      // of one.
      checkServerIdentity: (_host, certificate) => checkServerIdentity(host, certificate),
    },
    enableChannelBinding: true,
    application_name: settings.applicationName,
    keepAlive: true,
    connectionTimeoutMillis: settings.connectTimeoutMs,
    query_timeout: settings.statementTimeoutMs + settings.answerSlackMs,
  };
}

/**
 * Connections that are made when needed and closed when idle. An idle one that breaks is reported to
 * `onBroken`, and replaced when needed.
 */
export function createPool(
  config: pg.PoolConfig,
  onBroken: (error: Error) => void = () => undefined,
): pg.Pool {
  const pool = new pg.Pool({ idleTimeoutMillis: IDLE_MS, ...config });
  // Without a listener the error would end the process.
  pool.on('error', onBroken);
  return pool;
}
