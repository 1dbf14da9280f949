import { once } from 'node:events';
import type { OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { TLSSocket } from 'node:tls';
import type { ShareKey } from '../shares/share-key.ts';
import { onceGone } from './connection.ts';
import { COUNTED_WRITE_BYTES_MIN, type StreamBufferBudget } from './stream-buffer-budget.ts';

/** Bytes that wait for a reader who does not keep up; beyond it the stream is cut. */
const WAITING_BYTES_MAX = 262_144;

/** Where the events of one reader go. */
export interface EventSink {
  /** Never blocks. A stream whose reader does not keep up is closed automatically. */
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
  /** Shared with other streams; one that finds none left is cut off. */
  readonly room?: { readonly of: StreamBufferBudget; readonly key: ShareKey };
}

/**
 * A stream of server-sent events over an answer that Fastify has let go of. A reader that is too slow is cut
 * off, and may come back to where it was: nothing is held for it.
 */
export class EventStream implements EventSink {
  readonly #response: ServerResponse;
  readonly #waitingBytesMax: number;
  readonly #room: EventStreamOptions['room'];
  #held: (() => void)[] = [];

  constructor(response: ServerResponse, options: EventStreamOptions = {}) {
    this.#response = response;
    this.#waitingBytesMax = options.waitingBytesMax ?? WAITING_BYTES_MAX;
    this.#room = options.room;
    if (this.#room !== undefined) {
      const release = () => {
        for (const giveBack of this.#held.splice(0)) giveBack();
      };
      response.on('drain', release);
      response.once('close', release);
    }
    response.writeHead(200, {
      ...options.headers,
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
    });
    response.flushHeaders();
    // A stream has no end of its own that somebody could still wait for.
    onceGone(response, () => response.destroy());
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
    if (this.#response.writableLength > this.#waitingBytesMax || !this.#hasRoom(blocks)) this.cut();
  }

  /** What waits takes room until all of it is on its way. */
  #hasRoom(blocks: string | Buffer): boolean {
    const isLarge = blocks.length >= COUNTED_WRITE_BYTES_MIN;
    if (this.#room === undefined || !isLarge || !this.needsDrain) return true;
    // TLS encrypts into memory of its own, and a string is made bytes of.
    const isShared = typeof blocks !== 'string' && !(this.#response.socket instanceof TLSSocket);
    const giveBack = isShared
      ? this.#room.of.hold(this.#room.key, blocks.buffer, blocks.buffer.byteLength)
      : this.#room.of.hold(this.#room.key, {}, Buffer.byteLength(blocks));
    if (giveBack === undefined) return false;
    this.#held.push(giveBack);
    return true;
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
