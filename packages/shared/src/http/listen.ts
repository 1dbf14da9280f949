import { lookup } from 'node:dns/promises';
import { once } from 'node:events';
import type { Server } from 'node:http';
import {
  type AddressInfo,
  createServer,
  type Server as Listener,
  type ListenOptions as NetListenOptions,
  type Socket,
} from 'node:net';
import type { FastifyInstance } from 'fastify';
import { printable } from '../logs/printable.ts';
import { StartRefused } from '../process/lifecycle.ts';

/**
 * Sockets that listen on a port. In one turn of the event loop, Node accepts one connection of each. With a
 * single socket, each connection before that of a client would cost it a turn.
 */
const SOCKETS = process.platform === 'linux' ? 32 : 1;
/**
 * Connections that the system completes for each socket before the process accepts them. Further clients
 * must send their first packet again, a second later.
 */
const BACKLOG = 8_192 / SOCKETS;

export interface ListenOptions {
  readonly host: string;
  /** 0 for any free one. */
  readonly port: number;
  /** The variables of host and port are this with HOST and PORT. A refusal names them. */
  readonly prefix: string;
}

/**
 * Listens on a port of one address.
 *
 * @returns the URL, with the actual port.
 * @throws StartRefused when the host or the port cannot be used, or the system's error. If two processes of
 *   one user begin to listen within milliseconds, both may succeed.
 */
export async function listen(app: FastifyInstance, options: ListenOptions): Promise<string> {
  const { host, port } = options;
  try {
    // For a name with two addresses, Fastify would open a second server.
    const { address } = await lookup(host);
    return await app.listen({ host: address, port });
  } catch (cause) {
    const refusal = refusalOf((cause as NodeJS.ErrnoException).code, options);
    throw refusal === undefined ? cause : new StartRefused(refusal, { cause });
  }
}

function refusalOf(code: string | undefined, { host, port, prefix }: ListenOptions): string | undefined {
  switch (code) {
    case 'EADDRINUSE':
      return `port ${port} of ${host} is in use; stop what uses it, or set ${prefix}PORT`;
    case 'EACCES':
      return `this user may not listen on port ${port}; set ${prefix}PORT to a port above 1023`;
    case 'EADDRNOTAVAIL':
      return `${prefix}HOST: this machine has no address ${printable(host)}; name one that it has`;
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `${prefix}HOST: the host name ${printable(host)} does not resolve; name an address of this machine`;
    default:
      return undefined;
  }
}

/** How connections are accepted. */
export interface FrontOptions {
  /** Whether a client may end its half of the connection before the answer. */
  readonly allowHalfOpen: boolean;
  /** @returns whether the connection is served. If not, `accept` closes it, and nothing reads it. */
  readonly accept: (socket: Socket) => boolean;
}

/**
 * Puts listeners in front of an HTTP or HTTPS server. They accept connections and pass them to the server,
 * and they replace its `listen`, `address` and `close`. On Linux, several sockets share the port
 * (`SO_REUSEPORT`), and the system distributes connections among them.
 */
export function listenInFront(server: Server, { allowHalfOpen, accept }: FrontOptions): void {
  const listeners: Listener[] = [];
  const serve = (socket: Socket): void => {
    if (!accept(socket)) return;
    server.emit('connection', socket);
    socket.resume();
  };
  const create = () => createServer({ allowHalfOpen, noDelay: true, pauseOnConnect: true }, serve);
  const closeListeners = () => Promise.all(listeners.splice(0).map((one) => one[Symbol.asyncDispose]()));
  server.listen = ((options: ListenOptions) => {
    openAll(listeners, create, options).then(
      () => server.emit('listening'),
      (error) => {
        void closeListeners();
        server.emit('error', error);
      },
    );
    return server;
  }) as typeof server.listen;
  server.address = () => listeners[0]?.address() ?? null;
  const close = server.close.bind(server);
  server.close = (done) => {
    server.closeIdleConnections();
    // The server itself does not listen, which would be an error.
    void closeListeners().then(() => close(() => done?.()));
    return server;
  };
}

async function openAll(
  listeners: Listener[],
  create: () => Listener,
  { host, port }: ListenOptions,
): Promise<void> {
  const reusePort = SOCKETS > 1;
  if (reusePort && port !== 0) {
    // A socket with `SO_REUSEPORT` would share the port even with another process of this user.
    await using _probe = await open(createServer(), { host, port });
  }
  for (let count = 0; count < SOCKETS; count++) {
    const first = listeners[0]?.address() as AddressInfo | undefined;
    const options = { host: first?.address ?? host, port: first?.port ?? port };
    listeners.push(await open(create(), { ...options, backlog: BACKLOG, reusePort }));
  }
}

async function open(listener: Listener, options: NetListenOptions): Promise<Listener> {
  listener.listen(options);
  await once(listener, 'listening');
  return listener;
}
