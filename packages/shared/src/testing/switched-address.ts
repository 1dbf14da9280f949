import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';

/**
 * One loopback address for servers that change, like a virtual address of a primary and its standby, or a
 * load balancer of nodes. Connections go to the servers in turn and skip one that refuses them.
 */
export class SwitchedAddress implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #targets: readonly number[];
  #next = 0;

  private constructor(targets: readonly number[]) {
    this.#targets = targets;
    this.#server = createServer({ noDelay: true }, (client) => {
      this.#track(client);
      this.#join(client, this.#targets.length);
    });
  }

  static async open(...targetPorts: readonly number[]): Promise<SwitchedAddress> {
    const opened = new SwitchedAddress(targetPorts);
    opened.#server.listen(0, '127.0.0.1');
    await once(opened.#server, 'listening');
    return opened;
  }

  get port(): number {
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('a TCP port was expected');
    return address.port;
  }

  /** Breaks every connection. New ones go to these servers; without servers they fail. */
  switchTo(...targetPorts: readonly number[]): void {
    this.#targets = targetPorts;
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.switchTo();
    if (this.#server.listening) await once(this.#server, 'close');
  }

  #join(client: Socket, tries: number): void {
    const port = this.#targets[this.#next++ % this.#targets.length];
    if (port === undefined || tries === 0) {
      client.destroy();
      return;
    }
    const upstream = connect({ port, host: '127.0.0.1', noDelay: true });
    this.#track(upstream);
    let isJoined = false;
    upstream.once('connect', () => {
      isJoined = true;
      client.pipe(upstream);
      upstream.pipe(client);
    });
    client.once('close', () => upstream.destroy());
    upstream.once('close', () => {
      if (isJoined) client.destroy();
      else if (!client.destroyed) this.#join(client, tries - 1);
    });
  }

  #track(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => socket.destroy());
    socket.once('close', () => this.#sockets.delete(socket));
  }
}
