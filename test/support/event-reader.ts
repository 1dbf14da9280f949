import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { createParser, type EventSourceMessage } from 'eventsource-parser';

/** A reader of server-sent events with its own connection. */
export class EventReader implements Disposable {
  readonly events: EventSourceMessage[] = [];
  readonly #response: IncomingMessage;
  readonly #arrived = new Set<() => void>();
  isEnded = false;

  private constructor(response: IncomingMessage) {
    this.#response = response;
    const parser = createParser({
      onEvent: (event) => {
        this.events.push(event);
        this.#wake();
      },
    });
    response.setEncoding('utf8');
    response.on('data', (text: string) => parser.feed(text));
    response.once('close', () => {
      this.isEnded = true;
      this.#wake();
    });
    response.on('error', () => undefined);
  }

  /** @throws Error with the text of an answer other than 200. */
  static async open(url: string, token: string, headers: Record<string, string> = {}): Promise<EventReader> {
    const request = httpRequest(url, {
      agent: false,
      headers: { accept: 'text/event-stream', authorization: `Bearer ${token}`, ...headers },
    });
    request.end();
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    if (response.statusCode !== 200) {
      let text = '';
      for await (const chunk of response) text += String(chunk);
      throw new Error(text);
    }
    return new EventReader(response);
  }

  get headers(): IncomingMessage['headers'] {
    return this.#response.headers;
  }

  /** The `data` of the changes received so far. */
  get changes(): Record<string, unknown>[] {
    return this.events
      .filter(({ event }) => event === 'change')
      .map(({ data }) => JSON.parse(data) as Record<string, unknown>);
  }

  /** The id of the latest event. */
  get lastEventId(): string {
    return this.events.findLast(({ id }) => id !== undefined)?.id ?? '';
  }

  /** Resolves once the condition holds, checked at each chunk. Rejects when the stream ends first. */
  async until(holds: () => boolean): Promise<void> {
    while (!holds()) {
      if (this.isEnded) throw new Error('the stream has ended');
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#arrived.add(resolve);
      await promise;
      this.#arrived.delete(resolve);
    }
  }

  /** Resolves when the stream has ended. */
  async ended(): Promise<void> {
    if (!this.isEnded) await once(this.#response, 'close');
  }

  pause(): void {
    this.#response.pause();
  }

  resume(): void {
    this.#response.resume();
  }

  [Symbol.dispose](): void {
    this.#response.destroy();
  }

  #wake(): void {
    for (const wake of this.#arrived) wake();
  }
}
