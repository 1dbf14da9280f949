import { setTimeout as delay } from 'node:timers/promises';
import { type KmsEvent, kmsEventSchema } from '@bundoc/shared/contract/events';
import { formatError } from '@bundoc/shared/logs/error-line';
import type { Logger } from '@bundoc/shared/logs/logger';
import { backoffMs } from '@bundoc/shared/runtime/backoff';
import { createParser, type EventSourceMessage } from 'eventsource-parser';

export interface KmsEventsOptions {
  /**
   * Opens the stream after the event with this id; from the start without one. Throws when it cannot be
   * opened.
   */
  readonly open: (lastEventId: string | undefined, signal: AbortSignal) => Promise<AsyncIterable<Uint8Array>>;
  /** Resolves when BunKMS is reachable for the first time; failures before that are not logged. */
  readonly ready?: Promise<void>;
  /** Called for every event except heartbeats, in order; must not throw. */
  readonly onEvent: (event: KmsEvent) => void;
  readonly logger: Logger;
  /** Source of jitter, 0 to 1. */
  readonly random?: () => number;
  /** Waits before the next attempt; replaced in tests. */
  readonly pause?: (ms: number, signal: AbortSignal) => Promise<void>;
}

const BACKOFF = { firstMs: 100, maxMs: 10_000 };
/** Heartbeats after which the end of a stream does not count as a failure. A stream begins with one. */
const SETTLED_AFTER = 2;
/** Reasons of one outage that are logged, each once. */
const REASONS_LOGGED_MAX = 10;
/** Maximum characters of one event; BunKMS's are far shorter. */
const EVENT_CHARS_MAX = 65_536;

/** BunKMS ended the stream. It also does so when it stops: this is no defect, so its stack is not logged. */
class StreamEnded extends Error {
  override readonly name = 'StreamEnded';
}

/**
 * Follows BunKMS's stream of events while Bundoc runs. It reconnects with backoff and full jitter, and
 * resumes after the last event. An unreadable event ends the stream, and the next one begins with a reset.
 *
 * Without a stream, changes only take effect later: keys end with their lease, tokens with their lifetime.
 */
export class KmsEvents implements AsyncDisposable {
  readonly #options: KmsEventsOptions;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  #lastEventId: string | undefined;
  #isLive = false;
  /** Logged reasons for the missing events: an outage may begin for one reason and continue for another. */
  readonly #loggedReasons = new Set<string>();
  #failures = 0;

  constructor(options: KmsEventsOptions) {
    this.#options = options;
    this.#running = this.#run(this.#stopping.signal);
  }

  /** True while an open stream is complete: after a `reset` that includes the revoked tokens. */
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
      let reason: unknown = new StreamEnded('the stream has ended');
      try {
        await this.#follow(signal);
      } catch (error) {
        reason = error;
      }
      this.#isLive = false;
      if (signal.aborted) return;
      const line = formatError(reason);
      if (!this.#loggedReasons.has(line) && this.#loggedReasons.size < REASONS_LOGGED_MAX)
        logger.warn(
          { err: reason },
          'no events from BunKMS: until they resume, changed keys and tokens stay usable until they expire',
        );
      this.#loggedReasons.add(line);
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
    this.#loggedReasons.clear();
  }

  /** @returns undefined for an unknown kind of event. */
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
