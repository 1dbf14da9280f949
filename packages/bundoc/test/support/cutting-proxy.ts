import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';

/**
 * The point at which a connection is cut: before a message of the client reaches the server, or after the
 * server's answer to it reached the proxy.
 */
export type Cut = 'before the request' | 'before the answer';

/** The text in a commit's message, and in no other: BEGIN names the level READ COMMITTED. */
export const COMMIT_MESSAGE = 'COMMIT\0';

/**
 * A proxy for PostgreSQL. It cuts a connection at the next message with a given text, or all of them for good
 * after a number of messages.
 */
export class CuttingProxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #targetPort: number;
  readonly #sockets = new Set<Socket>();
  #next: { readonly text: string; readonly cut: Cut } | undefined;
  #messagesLeft = Number.POSITIVE_INFINITY;
  cuts = 0;

  private constructor(targetPort: number) {
    this.#targetPort = targetPort;
    this.#server = createServer((client) => this.#join(client));
  }

  static async open(targetPort: number): Promise<CuttingProxy> {
    const proxy = new CuttingProxy(targetPort);
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  cutAt(text: string, cut: Cut): void {
    this.#next = { text, cut };
  }

  /**
   * Passes this many messages from clients, and nothing from then on: to the server, the clients seem killed.
   */
  dieAfter(messages: number): void {
    this.#messagesLeft = messages;
  }

  /** Cuts every open connection. */
  cutNow(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await once(this.#server, 'close');
  }

  #join(client: Socket): void {
    const upstream = connect(this.#targetPort, '127.0.0.1');
    let isAnswerCut = false;
    const end = () => {
      client.destroy();
      upstream.destroy();
    };
    for (const socket of [client, upstream]) {
      this.#sockets.add(socket);
      socket.on('error', end);
      socket.once('close', () => {
        this.#sockets.delete(socket);
        end();
      });
    }
    client.on('data', (chunk: Buffer) => {
      if (this.#messagesLeft-- <= 0) return end();
      if (this.#next !== undefined && chunk.includes(this.#next.text)) {
        const { cut } = this.#next;
        this.#next = undefined;
        this.cuts++;
        if (cut === 'before the request') return end();
        isAnswerCut = true;
      }
      upstream.write(chunk);
    });
    upstream.on('data', (chunk: Buffer) => {
      if (isAnswerCut) end();
      else client.write(chunk);
    });
  }
}
