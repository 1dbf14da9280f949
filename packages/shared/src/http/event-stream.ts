import type { OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { TLSSocket } from 'node:tls';
import type { ShareKey } from '../shares/share-key.ts';
import { SentBytes } from './sent-bytes.ts';
import { COUNTED_WRITE_BYTES_MIN, type StreamBufferBudget } from './stream-buffer-budget.ts';

/** Maximum of bytes that wait for a slow reader. With more, the stream is cut off. */
const WAITING_BYTES_MAX = 262_144;

/** Receives the events for one reader. */
export type EventSink = Pick<
  EventStream,
  'send' | 'needsDrain' | 'sentBytes' | 'drained' | 'isClosed' | 'end' | 'cut'
>;

export interface EventStreamOptions {
  /** Additional headers of the answer. */
  readonly headers?: OutgoingHttpHeaders;
  /** {@link WAITING_BYTES_MAX} by default. */
  readonly waitingBytesMax?: number;
  /** A budget that the stream shares with others. A stream that finds no room is cut off. */
  readonly room?: { readonly of: StreamBufferBudget; readonly key: ShareKey };
}

/**
 * A stream of server-sent events over a hijacked answer. A reader for whom more than `waitingBytesMax` bytes
 * wait is cut off. It may resume from its last event.
 */
export class EventStream {
  readonly #response: ServerResponse;
  readonly #waitingBytesMax: number;
  readonly #room: EventStreamOptions['room'];
  readonly #sent: SentBytes | undefined;
  #held: (() => void)[] = [];

  constructor(response: ServerResponse, options: EventStreamOptions = {}) {
    this.#response = response;
    const cut = () => this.cut();
    this.#sent = response.socket === null ? undefined : new SentBytes(response.socket);
    this.#waitingBytesMax = options.waitingBytesMax ?? WAITING_BYTES_MAX;
    this.#room = options.room;
    const release = () => {
      for (const giveBack of this.#held.splice(0)) giveBack();
    };
    response.on('drain', release).once('close', release);
    response.writeHead(200, {
      ...options.headers,
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
    });
    response.flushHeaders();
    // The stream has no end that a client could wait for after it has ended its half.
    const { socket } = response.req;
    socket.once('end', cut);
    response.once('close', () => socket.off('end', cut));
    if (socket.readableEnded) cut();
  }

  get isClosed(): boolean {
    return this.#response.destroyed || this.#response.writableEnded;
  }

  /** True while sent bytes wait for the reader. */
  get needsDrain(): boolean {
    return this.#response.writableNeedDrain;
  }

  /** Bytes that the system has accepted since the stream began. */
  get sentBytes(): number {
    return this.#sent?.total ?? 0;
  }

  /** Never blocks. A reader that is too slow is cut off. */
  send(blocks: string | Buffer): void {
    if (this.isClosed) return;
    this.#response.write(blocks);
    // Node would write at the end of the turn, for all streams together: no slice would count the time.
    this.#response.socket?.uncork();
    if (this.#response.writableLength > this.#waitingBytesMax || !this.#hasRoom(blocks)) this.cut();
  }

  /** Waiting bytes take room until the system has all of them. */
  #hasRoom(blocks: string | Buffer): boolean {
    const isLarge = blocks.length >= COUNTED_WRITE_BYTES_MIN;
    if (this.#room === undefined || !isLarge || !this.needsDrain) return true;
    // TLS encrypts into new memory, and a string is copied into bytes.
    const isShared = typeof blocks !== 'string' && !(this.#response.socket instanceof TLSSocket);
    const giveBack = isShared
      ? this.#room.of.hold(this.#room.key, blocks.buffer, blocks.buffer.byteLength)
      : this.#room.of.hold(this.#room.key, {}, Buffer.byteLength(blocks));
    if (giveBack === undefined) return false;
    this.#held.push(giveBack);
    return true;
  }

  /** Resolves when the system has all sent bytes, or the sink is closed. */
  async drained(): Promise<void> {
    if (this.isClosed || !this.#response.writableNeedDrain) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const response = this.#response.once('drain', resolve).once('close', resolve);
    await promise;
    response.off('drain', resolve).off('close', resolve);
  }

  /** Ends the stream after the events that were sent. */
  end(): void {
    if (!this.isClosed) this.#response.end();
  }

  /** Cuts the stream off at once. */
  cut(): void {
    this.#response.destroy();
  }
}
