import type { Socket } from 'node:net';
import type { SecureContextOptions, TLSSocket, TlsOptions } from 'node:tls';
import type { FastifyInstance } from 'fastify';
import type { ServiceMetrics } from '../metrics/metrics.ts';
import { boundedWarner } from '../runtime/bounded-warner.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Logger } from '../runtime/logger.ts';
import type { TlsFiles } from './files.ts';
import { WatchedTls } from './watched-tls.ts';

/** TLS of one listener. */
export interface ServerTls {
  readonly tls: WatchedTls;
  /** Clients must have a certificate of the authorities of `tls`. */
  readonly isMutual: boolean;
  /** Names that a client's certificate may have (SAN, DNS); any when undefined. */
  readonly clientNames?: readonly string[] | undefined;
  /** Told of every connection that was refused before HTTP began, and why, as a code. */
  readonly onRefused: (reason: string) => void;
}

export interface ServerTlsPorts {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: ServiceMetrics;
  readonly checkEveryMs?: number | undefined;
}

/**
 * TLS of one listener by its files, with its metrics and a bounded word in the log for what it refuses. The
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
  const warn = boundedWarner(
    (reason, count) => logger.warn({ listener, reason, count }, 'TLS refused connections'),
    () => clock.monotonic(),
  );
  return {
    tls,
    isMutual: files.ca !== undefined,
    clientNames,
    onRefused: (reason) => {
      metrics.tlsRefused(listener);
      warn(reason);
    },
  };
}

/** Longest handshake, milliseconds; a stop waits for one that is under way. */
const HANDSHAKE_TIMEOUT_MS = 5_000;

/** What a TLS server is made with. */
export function tlsOptionsOf({ tls, isMutual }: ServerTls): TlsOptions & SecureContextOptions {
  return {
    ...tls.context,
    requestCert: isMutual,
    rejectUnauthorized: isMutual,
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
  };
}

/**
 * Follows the certificate files, and ends every connection whose handshake failed or whose client is not one
 * of {@link ServerTls.clientNames}: no byte of it is read as HTTP. Connections that stand keep what they
 * began with.
 *
 * @param answerPlain ends the connection of a client that speaks HTTP without TLS with an answer that says
 * so. Not called for mutual TLS: strangers learn nothing there.
 */
export function guardTls(
  app: FastifyInstance,
  { tls, isMutual, clientNames, onRefused }: ServerTls,
  answerPlain: (socket: Socket) => void,
): void {
  const server = app.server as typeof app.server & {
    setSecureContext(context: SecureContextOptions): void;
  };
  tls.follow((context) => server.setSecureContext(context));
  // Node hands these on as HTTP client errors, whose answer would be written into a connection that is none.
  server.removeAllListeners('tlsClientError');
  const connections = isMutual ? new Map<string, Socket>() : connectionsByPeer(server);
  server.on('tlsClientError', (error: NodeJS.ErrnoException, socket: TLSSocket) => {
    const plain = error.code === 'ERR_SSL_HTTP_REQUEST' ? connections.get(peerOf(socket)) : undefined;
    if (plain === undefined) socket.destroy();
    else answerPlain(plain);
    // A certificate that does not verify ends the connection without an error of its own.
    onRefused(String(socket.authorizationError ?? error.code));
  });
  if (clientNames === undefined) return;
  // HTTP begins with this event: a connection that is destroyed here is never read.
  server.prependListener('secureConnection', (socket: TLSSocket) => {
    if (hasName(socket, clientNames)) return;
    socket.destroy();
    onRefused('CLIENT_NAME_NOT_ALLOWED');
  });
}

/** The connections below TLS, which Node does not hand on. An address has at most one with a port. */
function connectionsByPeer(server: FastifyInstance['server']): Map<string, Socket> {
  const connections = new Map<string, Socket>();
  server.on('connection', (socket: Socket) => {
    const peer = peerOf(socket);
    connections.set(peer, socket);
    socket.once('close', () => {
      if (connections.get(peer) === socket) connections.delete(peer);
    });
  });
  return connections;
}

function peerOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}

function hasName(socket: TLSSocket, allowed: readonly string[]): boolean {
  const names = socket.getPeerX509Certificate()?.subjectAltName ?? '';
  return names.split(', ').some((name) => name.startsWith('DNS:') && allowed.includes(name.slice(4)));
}
