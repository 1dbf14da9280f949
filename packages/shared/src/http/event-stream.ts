import { once } from 'node:events';
import type { OutgoingHttpHeaders, ServerResponse } from 'node:http';

/** Bytes that wait for a reader who does not keep up; beyond it the stream is cut. */
export const WAITING_BYTES_MAX = 262_144;

/** Where the events of one reader go. */
export interface EventSink {
  /** Never blocks; one that does not keep up is closed by itself. */
  send(blocks: string | Buffer): void;
  /** True while what was sent waits for the reader. */
  readonly needsDrain: boolean;
  /** Resolves when what was sent is on its way, or the sink is closed. */
  drained(): Promise<void>;
  readonly isClosed: boolean;
  /** Ends the stream in order: what was sent still arrives. */
  end(): void;
  /** Cuts the stream off. */
  cut(): void;
}

export interface EventStreamOptions {
  /** Headers of the answer beside those of every event stream. */
  readonly headers?: OutgoingHttpHeaders;
  /** {@link WAITING_BYTES_MAX} by default. */
  readonly waitingBytesMax?: number;
}

/**
 * A stream of server-sent events over an answer that Fastify has let go of. A reader that is too slow is cut off, and
 * may come back to where it was: nothing is held for it.
 */
export class EventStream implements EventSink {
  readonly #response: ServerResponse;
  readonly #waitingBytesMax: number;

  constructor(response: ServerResponse, options: EventStreamOptions = {}) {
    this.#response = response;
    this.#waitingBytesMax = options.waitingBytesMax ?? WAITING_BYTES_MAX;
    response.writeHead(200, {
      ...options.headers,
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
    });
    response.flushHeaders();
  }

  get isClosed(): boolean {
    return this.#response.destroyed || this.#response.writableEnded;
  }

  get needsDrain(): boolean {
    return this.#response.writableNeedDrain;
  }

  send(blocks: string | Buffer): void {
    if (this.isClosed) return;
    this.#response.write(blocks);
    if (this.#response.writableLength > this.#waitingBytesMax) this.cut();
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

  cut(): void {
    this.#response.destroy();
  }
}
