import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { CertifiedKey } from '../../src/cli/authority.ts';

/** What a server does with one request. Its body has been read. */
export type Misdeed = (response: ServerResponse, request: ReceivedRequest) => unknown;

export interface ReceivedRequest {
  readonly line: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

/** A server of which each answer is up to the test. */
export class HostileServer implements AsyncDisposable {
  /** Requests so far, in order. */
  readonly received: ReceivedRequest[] = [];
  /** What it does from now on. */
  misdeed: Misdeed = (response) => response.writeHead(404).end();
  readonly #server: Server;
  readonly #scheme: string;
  readonly #asked = Promise.withResolvers<void>();

  private constructor(server: Server, scheme: string) {
    this.#server = server;
    this.#scheme = scheme;
  }

  /** @param pair with it, the server speaks TLS. */
  static async start(pair?: CertifiedKey): Promise<HostileServer> {
    const server = pair === undefined ? createServer() : createTlsServer({ cert: pair.cert, key: pair.key });
    const hostile = new HostileServer(server, pair === undefined ? 'http' : 'https');
    server.on('request', (request, response) => void hostile.#receive(request, response));
    await once(server.listen(0, '127.0.0.1'), 'listening');
    return hostile;
  }

  get url(): string {
    return `${this.#scheme}://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Resolves once it has got a request. */
  async asked(): Promise<void> {
    await this.#asked.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #receive(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let body = '';
    for await (const chunk of request) body += String(chunk);
    const received = { line: `${request.method} ${request.url}`, headers: request.headers, body };
    this.received.push(received);
    this.misdeed(response, received);
    this.#asked.resolve();
  }
}
