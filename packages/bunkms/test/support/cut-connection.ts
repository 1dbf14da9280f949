import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';

/** The message of the protocol that commits: a simple query. */
const COMMIT = Buffer.from('COMMIT\0');

/** The fate of the next commit: it is lost, its answer is lost, or everything hangs from then on. */
export type Cut = 'before' | 'after' | 'hang';

/** A proxy between a node and its database that cuts the connection at a commit. */
export class CutConnection implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #decide: () => Cut | undefined = () => undefined;
  #cuts = 0;
  #isHanging = false;

  private constructor(targetPort: number) {
    this.#server = createServer({ noDelay: true }, (client) => this.#join(client, targetPort));
  }

  static async open(targetPort: number): Promise<CutConnection> {
    const opened = new CutConnection(targetPort);
    opened.#server.listen(0, '127.0.0.1');
    await once(opened.#server, 'listening');
    return opened;
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  /** How many commits were cut. */
  get cuts(): number {
    return this.#cuts;
  }

  cutNext(how: Cut): void {
    let next: Cut | undefined = how;
    this.#decide = () => {
      const present = next;
      next = undefined;
      return present;
    };
  }

  /** Sets a function that decides the fate of each commit. */
  cutWhen(decide: () => Cut | undefined): void {
    this.#decide = decide;
  }

  /** Stops forwarding in both directions without closing connections. */
  hang(): void {
    this.#isHanging = true;
  }

  /** Breaks hanging connections; new ones work. */
  resume(): void {
    this.#isHanging = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.resume();
    if (this.#server.listening) await once(this.#server, 'close');
  }

  #join(client: Socket, port: number): void {
    const upstream = connect({ port, host: '127.0.0.1', noDelay: true });
    let isMute = false;
    for (const socket of [client, upstream]) {
      this.#sockets.add(socket);
      socket.on('error', () => socket.destroy());
      socket.once('close', () => this.#sockets.delete(socket));
    }
    client.once('close', () => upstream.destroy());
    upstream.once('close', () => client.destroy());
    client.on('data', (bytes: Buffer) => {
      if (this.#isHanging || isMute) return;
      const how = bytes.includes(COMMIT) ? this.#decide() : undefined;
      if (how !== undefined) {
        this.#cuts++;
        if (how === 'before') return upstream.destroy();
        isMute = true;
        if (how === 'after') upstream.once('data', () => upstream.destroy());
      }
      upstream.write(bytes);
    });
    upstream.on('data', (bytes: Buffer) => {
      if (!this.#isHanging && !isMute) client.write(bytes);
    });
  }
}
