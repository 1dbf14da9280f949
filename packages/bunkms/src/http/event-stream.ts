import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import type { EventSink } from '../service/event-feed.ts';

/** Bytes that wait for a reader who does not keep up; beyond it the stream is cut. */
export const WAITING_BYTES_MAX = 262_144;

/**
 * A stream of server-sent events over an answer that Fastify has let go of. A reader that is too slow is cut off, and
 * may come back to where it was: nothing is held for it.
 */
export class EventStream implements EventSink {
  readonly #response: ServerResponse;

  constructor(response: ServerResponse) {
    this.#response = response;
    response.writeHead(200, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
    });
    response.flushHeaders();
  }

  get isClosed(): boolean {
    return this.#response.destroyed || this.#response.writableEnded;
  }

  send(block: string): void {
    if (this.isClosed) return;
    this.#response.write(block);
    if (this.#response.writableLength > WAITING_BYTES_MAX) this.#response.destroy();
  }

  async drained(): Promise<void> {
    if (this.isClosed || !this.#response.writableNeedDrain) return;
    const either = new AbortController();
    await Promise.race([
      once(this.#response, 'drain', { signal: either.signal }),
      once(this.#response, 'close', { signal: either.signal }),
    ]);
    either.abort();
  }

  end(): void {
    if (!this.isClosed) this.#response.end();
  }
}
