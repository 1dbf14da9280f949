import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What a proxy does with a request: passes it on, answers itself, or holds back the end of the answer. */
export type Act =
  | 'pass'
  | 'hold'
  | { readonly status: number; readonly headers: Record<string, string>; readonly body: string };

/** A proxy in front of a service, whose acts a test decides. */
export class HeldProxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #target: string;
  /** Decides for each path. */
  act: (path: string) => Act = () => 'pass';
  /** The paths of all requests, in order. */
  readonly asked: string[] = [];

  private constructor(target: string) {
    this.#target = target;
    this.#server = createServer((incoming, response) => this.#answer(incoming, response));
  }

  static async start(target: string): Promise<HeldProxy> {
    const proxy = new HeldProxy(target);
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  #answer(incoming: IncomingMessage, response: ServerResponse): void {
    const path = String(incoming.url);
    this.asked.push(path);
    const act = this.act(path);
    if (typeof act === 'object') {
      response.writeHead(act.status, act.headers).end(act.body);
      return;
    }
    const { method, headers } = incoming;
    const passed = request(new URL(path, this.#target), { method, headers, agent: false }, (answer) => {
      response.writeHead(Number(answer.statusCode), answer.headers);
      if (act === 'pass') answer.pipe(response);
      else answer.once('data', (piece: Buffer) => response.write(piece.subarray(0, 50)));
    });
    passed.on('error', () => response.destroy());
    response.on('close', () => passed.destroy());
    incoming.pipe(passed);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }
}
