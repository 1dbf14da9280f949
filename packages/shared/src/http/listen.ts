import { lookup } from 'node:dns/promises';
import { createServer, type Server, type Socket } from 'node:net';
import type { FastifyInstance } from 'fastify';

/**
 * Sockets that listen on a port. In one turn of the event loop, Node accepts one connection of each. With one
 * socket, a client would wait for as many turns as there are connections before its own.
 */
const SOCKETS = 32;
/**
 * Connections that the system completes for each socket before the process accepts them. Beyond it, a client
 * repeats its first packet only after a second.
 */
const BACKLOG = 256;

export interface ListenOptions {
  readonly host: string;
  /** 0 for any free one. */
  readonly port: number;
}

/**
 * Listens on a port of one address. On Linux, several sockets share the port (`SO_REUSEPORT`), and the system
 * distributes connections among them.
 *
 * @returns the URL, with the actual port.
 * @throws the system's error, such as `EADDRINUSE`. Two processes of one user that begin to listen within
 *   milliseconds may miss it.
 */
export async function listen(app: FastifyInstance, { host, port }: ListenOptions): Promise<string> {
  // For a name with two addresses, Fastify would open a second server, without the limits of the first.
  const { address: first } = await lookup(host);
  const options = { host: first, port, backlog: BACKLOG * SOCKETS };
  if (process.platform !== 'linux') return await app.listen(options);
  await app.ready();
  // A socket that shares its port would also share that of another process of this user.
  if (port !== 0) await requireFree(options);
  const shared = { ...options, backlog: BACKLOG, reusePort: true };
  const url = await app.listen(shared);
  // HTTP servers set it, and TLS servers do not.
  const { allowHalfOpen } = app.server as unknown as { allowHalfOpen: boolean };
  const more: Server[] = [];
  closeWith(app.server, more);
  const address = app.server.address();
  if (typeof address !== 'object' || address === null) return url;
  for (let count = 1; count < SOCKETS; count++) {
    const server = createServer({ allowHalfOpen, noDelay: true, pauseOnConnect: true });
    server.on('connection', (socket: Socket) => app.server.emit('connection', socket));
    await listening(server, { ...shared, host: address.address, port: address.port });
    more.push(server);
  }
  return url;
}

interface SystemOptions extends ListenOptions {
  readonly backlog: number;
}

async function requireFree(options: SystemOptions): Promise<void> {
  const server = createServer();
  await listening(server, options);
  await new Promise((resolve) => server.close(resolve));
}

function listening(server: Server, options: SystemOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(options, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

/** Closes a server together with others, whose connections it serves. */
function closeWith(server: Server, others: readonly Server[]): void {
  const close = server.close.bind(server);
  server.close = (done) => {
    const closed = others.map((other) => new Promise((resolve) => other.close(resolve)));
    return close((error) => void Promise.all(closed).then(() => done?.(error)));
  };
}
