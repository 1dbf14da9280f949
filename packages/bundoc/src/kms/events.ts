import { setTimeout as delay } from 'node:timers/promises';
import { type KmsEvent, kmsEventSchema } from '@bundoc/shared/contract/events';
import { backoffMs } from '@bundoc/shared/runtime/backoff';
import { lineOf } from '@bundoc/shared/runtime/error-line';
import type { Logger } from '@bundoc/shared/runtime/logger';
import { createParser, type EventSourceMessage } from 'eventsource-parser';

export interface KmsEventsOptions {
  /**
   * Opens the stream behind the event with this id; from the start without one. Throws when it cannot be
   * opened.
   */
  readonly open: (lastEventId: string | undefined, signal: AbortSignal) => Promise<AsyncIterable<Uint8Array>>;
  /** Resolves when BunKMS is there for the first time: before, there is nothing to complain of. */
  readonly ready?: Promise<void>;
  /** Told of every event but heartbeats, in order; must not throw. */
  readonly onEvent: (event: KmsEvent) => void;
  readonly logger: Logger;
  /** Source of jitter, 0 to 1. */
  readonly random?: () => number;
  /** Waits before the next try; a test has its own. */
  readonly pause?: (ms: number, signal: AbortSignal) => Promise<void>;
}

const BACKOFF = { firstMs: 100, maxMs: 10_000 };
/** Heartbeats that a stream must have brought for its end to count as no failure. It begins with one. */
const SETTLED_AFTER = 2;
/** Reasons of one outage that are logged, each once. */
const REASONS_TOLD_MAX = 10;
/** Characters of one event; BunKMS's are far below. */
const EVENT_CHARS_MAX = 65_536;

/**
 * Follows BunKMS's stream of events for as long as Bundoc runs: reconnects with backoff and full jitter, and
 * goes on behind the last event it has. Whatever a stream says that cannot be read ends it, and the next one
 * begins with a reset.
 *
 * While there is no stream, nothing is lost but time: keys end with their lease, tokens with their life.
 */
export class KmsEvents implements AsyncDisposable {
  readonly #options: KmsEventsOptions;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  #lastEventId: string | undefined;
  #isLive = false;
  /**
   * Why there are no events, as far as the log has it already: an outage may begin for one reason and go on
   * for another.
   */
  readonly #told = new Set<string>();
  #failures = 0;

  constructor(options: KmsEventsOptions) {
    this.#options = options;
    this.#running = this.#run(this.#stopping.signal);
  }

  /**
   * True while a stream is open that has told everything up to a place: behind a `reset` that includes the
   * revoked tokens.
   */
  get isLive(): boolean {
    return this.#isLive;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { logger, random, pause = wait, ready } = this.#options;
    const stopped = new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    await Promise.race([ready, stopped]);
    while (!signal.aborted) {
      let reason: unknown = new Error('the stream has ended');
      try {
        await this.#follow(signal);
      } catch (error) {
        reason = error;
      }
      this.#isLive = false;
      if (signal.aborted) return;
      const line = lineOf(reason);
      if (!this.#told.has(line) && this.#told.size < REASONS_TOLD_MAX)
        logger.warn(
          { err: reason },
          'no events from BunKMS: until they resume, changed keys and tokens stay usable until they expire',
        );
      this.#told.add(line);
      await pause(backoffMs(BACKOFF, ++this.#failures, random), signal).catch(() => undefined);
    }
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const stream = await this.#options.open(this.#lastEventId, signal);
    let heartbeats = 0;
    const parser = createParser({
      maxBufferSize: EVENT_CHARS_MAX,
      onEvent: (message) => {
        this.#take(message);
        if (message.event === 'heartbeat' && ++heartbeats === SETTLED_AFTER) this.#failures = 0;
      },
      onError: (error) => {
        if (error.type !== 'unknown-field') throw this.#unreadable(error);
      },
    });
    const decoder = new TextDecoder();
    for await (const chunk of stream) parser.feed(decoder.decode(chunk, { stream: true }));
  }

  #take({ id, event: type, data }: EventSourceMessage): void {
    const event = this.#read(type, data);
    if (event?.type === 'reset') this.#lastEventId = undefined;
    if (event !== undefined && event.type !== 'heartbeat') this.#options.onEvent(event);
    if (id === undefined) return;
    this.#lastEventId = id;
    if (!this.#isLive) this.#options.logger.info('events arrive from BunKMS');
    this.#isLive = true;
    this.#told.clear();
  }

  /** @returns undefined for an event of a kind that this release does not know. */
  #read(type: string | undefined, data: string): KmsEvent | undefined {
    try {
      const event = kmsEventSchema.safeParse({ ...(JSON.parse(data) as object), type });
      if (event.success) return event.data;
      if (event.error.issues.some(({ code, path }) => code === 'invalid_union' && path[0] === 'type'))
        return undefined;
      throw event.error;
    } catch (error) {
      throw this.#unreadable(error);
    }
  }

  #unreadable(cause: unknown): Error {
    this.#lastEventId = undefined;
    return new Error('an event cannot be read', { cause });
  }
}

function wait(ms: number, signal: AbortSignal): Promise<void> {
  return delay(ms, undefined, { signal });
}
