import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';

/**
 * One address on loopback for a server that changes: what a virtual address or a proxy does in front of a primary and its standby.
 */
export class SwitchedAddress implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #target: number | undefined;

  private constructor(target: number) {
    this.#target = target;
    this.#server = createServer({ noDelay: true }, (client) => this.#join(client));
  }

  static async open(targetPort: number): Promise<SwitchedAddress> {
    const opened = new SwitchedAddress(targetPort);
    opened.#server.listen(0, '127.0.0.1');
    await once(opened.#server, 'listening');
    return opened;
  }

  get port(): number {
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('a TCP port was expected');
    return address.port;
  }

  /** Breaks every connection; new ones go to the other server, or with undefined nowhere. */
  switchTo(targetPort: number | undefined): void {
    this.#target = targetPort;
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.switchTo(undefined);
    if (this.#server.listening) await once(this.#server, 'close');
  }

  #join(client: Socket): void {
    this.#track(client);
    if (this.#target === undefined) {
      client.destroy();
      return;
    }
    const upstream = connect({ port: this.#target, host: '127.0.0.1', noDelay: true });
    this.#track(upstream);
    client.pipe(upstream);
    upstream.pipe(client);
    client.once('close', () => upstream.destroy());
    upstream.once('close', () => client.destroy());
  }

  #track(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => socket.destroy());
    socket.once('close', () => this.#sockets.delete(socket));
  }
}
