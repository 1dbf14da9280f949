import type { SecureContextOptions, TLSSocket, TlsOptions } from 'node:tls';
import type { FastifyInstance } from 'fastify';
import { CountedLines } from '../logs/counted-lines.ts';
import type { Logger } from '../logs/logger.ts';
import type { ServiceMetrics } from '../metrics/metrics.ts';
import type { Clock } from '../runtime/clock.ts';
import type { TlsFiles } from './files.ts';
import { WatchedTls } from './watched-tls.ts';

/** TLS of one listener. */
export interface ServerTls {
  readonly tls: WatchedTls;
  /** Whether clients must have a certificate from the authorities of `tls`. */
  readonly isMutual: boolean;
  /** Accepted names of client certificates (DNS SAN); any when undefined. */
  readonly clientNames?: readonly string[] | undefined;
  /** Called with a reason code for every connection that was refused before HTTP began. */
  readonly onRefused: (reason: string) => void;
}

export interface ServerTlsPorts {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: ServiceMetrics;
  readonly checkEveryMs?: number | undefined;
}

/**
 * Opens TLS for one listener from its files, with metrics, and with rate-limited log lines for refusals. The
 * caller disposes `tls`.
 *
 * @param files undefined for plain HTTP. With authorities among them, clients must have a certificate.
 * @throws ConfigError when the files are invalid.
 */
export function openServerTls(
  listener: string,
  files: TlsFiles | undefined,
  clientNames: readonly string[] | undefined,
  { clock, logger, metrics, checkEveryMs }: ServerTlsPorts,
): ServerTls | undefined {
  if (files === undefined) return undefined;
  const tls = new WatchedTls({ files, use: listener, clock, logger, checkEveryMs });
  metrics.watchCertificate(listener, tls);
  const lines = new CountedLines({ clock });
  return {
    tls,
    isMutual: files.ca !== undefined,
    clientNames,
    onRefused: (reason) => {
      metrics.tlsRefused(listener);
      lines.say('', '', (counted) =>
        logger.warn({ listener, reason, ...counted }, 'TLS refused connections'),
      );
    },
  };
}

/** Longest handshake, milliseconds. A stop waits for running handshakes. */
const HANDSHAKE_TIMEOUT_MS = 5_000;

/** The options of a TLS server. */
export function tlsOptionsOf({ tls, isMutual }: ServerTls): TlsOptions & SecureContextOptions {
  return {
    ...tls.context,
    requestCert: isMutual,
    rejectUnauthorized: isMutual,
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
  };
}

/**
 * Follows the certificate files. Closes every connection whose handshake fails or whose client is not one of
 * {@link ServerTls.clientNames}, before any byte of it is read as HTTP. Established connections keep their
 * certificate.
 *
 * @param answerPlain answers a client that speaks HTTP without TLS, and closes its connection. It is not
 *   called for mutual TLS, which reveals nothing to strangers.
 */
export function guardTls(
  app: FastifyInstance,
  { tls, isMutual, clientNames, onRefused }: ServerTls,
  answerPlain: (socket: TLSSocket) => void,
): void {
  const server = app.server as typeof app.server & {
    setSecureContext(context: SecureContextOptions): void;
  };
  tls.follow((context) => server.setSecureContext(context));
  // Node would turn these into HTTP client errors and write an answer to a connection that does not speak
  // HTTP.
  server.removeAllListeners('tlsClientError');
  server.on('tlsClientError', (error: NodeJS.ErrnoException, socket: TLSSocket) => {
    if (error.code === 'ERR_SSL_HTTP_REQUEST' && !isMutual) answerPlain(socket);
    else socket.destroy();
    // A certificate that fails verification closes the connection without a separate error.
    onRefused(String(socket.authorizationError ?? error.code));
  });
  if (clientNames === undefined) return;
  // HTTP begins with this event. A connection that is destroyed here is never read.
  server.prependListener('secureConnection', (socket: TLSSocket) => {
    if (hasName(socket, clientNames)) return;
    socket.destroy();
    onRefused('CLIENT_NAME_NOT_ALLOWED');
  });
}

function hasName(socket: TLSSocket, allowed: readonly string[]): boolean {
  const names = socket.getPeerX509Certificate()?.subjectAltName ?? '';
  return names.split(', ').some((name) => name.startsWith('DNS:') && allowed.includes(name.slice(4)));
}
