import { checkServerIdentity } from 'node:tls';
import pg from 'pg';
import { defined } from '../contract/defined.ts';
import { ConfigError, readSecretFile } from '../process/config.ts';
import { type NamedFile, readTlsMaterial } from '../tls/files.ts';
import { isThisMachine, type PostgresAddress } from './address.ts';

/** How to connect. Times in milliseconds. */
export interface ConnectionSettings {
  readonly address: PostgresAddress;
  /** The variable that has the address, for messages. */
  readonly variable: string;
  /**
   * Read for each connection, so that the password can change while the service runs. By default the URL's
   * password is used.
   */
  readonly passwordFile?: NamedFile | undefined;
  /** The authority of the server's certificate, PEM; by default those that Node trusts. */
  readonly caFile?: NamedFile | undefined;
  /** How long to wait for a new or a free connection. */
  readonly connectTimeoutMs: number;
  /** After which the server cancels a statement. */
  readonly statementTimeoutMs: number;
  /**
   * How much longer than the server the client waits for a statement, so that it gets the server's own error.
   */
  readonly answerSlackMs: number;
  /** The name of this client at the server. */
  readonly applicationName: string;
}

const IDLE_MS = 60_000;

/**
 * Whether the connection uses TLS and verifies the server. It does, unless `sslmode` is `disable`, or the
 * server runs on this machine and neither `sslmode` nor a CA file requires TLS. TLS without verification is
 * not supported, because anyone could impersonate the server.
 */
export function usesTls({ address, caFile }: Pick<ConnectionSettings, 'address' | 'caFile'>): boolean {
  const { sslMode, host } = address;
  return sslMode === undefined ? caFile !== undefined || !isThisMachine(host) : sslMode === 'verify-full';
}

/** The driver's configuration for one connection. @throws ConfigError for files that cannot be used. */
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
    // Separate members, because a URL would override them.
    host,
    port,
    database,
    user,
    ...defined({ password }),
    ssl: isTls && {
      ...defined({ ca }),
      rejectUnauthorized: true,
      // The driver passes host names on to Node, but not IP addresses, for which Node would verify
      // "localhost".
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
 * A pool of connections that are opened on demand and closed when idle. A broken idle connection is reported
 * to `onBroken` and replaced on demand.
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
