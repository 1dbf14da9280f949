import { Document } from './document.ts';
import { BundocError } from './error.ts';
import { EventStreamParser } from './event-stream.ts';
import { elementTexts, memberTexts } from './json-slices.ts';
import { CALL, requireKnown, requirePageSize, shown } from './options.ts';
import type { CallOptions, Transport } from './transport.ts';

export interface ChangesOptions {
  /** Where to begin: the `since` of an earlier page or iterator, or `now`. From the start when absent. */
  readonly since?: string | undefined;
  /** Changes of this collection only. */
  readonly collection?: string | undefined;
  /** Whether each change includes its document. */
  readonly documents?: boolean | undefined;
}

export interface ChangesPageOptions extends ChangesOptions, CallOptions {
  /** Changes per page, 1 to 1,000; 100 by default. */
  readonly pageSize?: number | undefined;
  /** How long the service waits for a change before it returns an empty page, seconds; at most 50. */
  readonly waitS?: number | undefined;
}

export interface FollowOptions extends ChangesOptions {
  /**
   * `stream` (the default) and `poll` follow the feed until aborted; `end` stops at its present end. A stream
   * delivers changes at once. Long polls also work behind proxies that buffer streams.
   */
  readonly until?: 'stream' | 'poll' | 'end' | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The latest change of a document. */
export interface Change<T> {
  readonly collection: string;
  readonly id: string;
  readonly rev: string;
  readonly deleted: boolean;
  /**
   * The document, if it was requested and exists. Line breaks between the tokens of its text are replaced by
   * spaces.
   */
  readonly document: Document<T> | undefined;
  /** The document was requested, but its stored bytes do not open. */
  readonly isUnreadable: boolean;
}

export interface ChangesPage<T> {
  readonly changes: readonly Change<T>[];
  /** Where to resume. */
  readonly since: string;
  /** True when the next page may have changes already. */
  readonly more: boolean;
}

/** Silence after which a stream counts as dead, milliseconds: three heartbeats. */
const SILENCE_MS = 45_000;
const POLL_S = 30;
const ABOUT = ['since', 'collection', 'documents'] as const satisfies readonly (keyof ChangesOptions)[];
const UNTIL: readonly string[] = ['stream', 'poll', 'end'] satisfies FollowOptions['until'][];
const PAGE = 1_000;
/** Statuses after which a stream reconnects. */
const PASSING_STATUSES: ReadonlySet<number> = new Set([0, 429, 500, 502, 503, 504]);

/** Reads the feed of changes of one project. */
export class ChangesReader<T> {
  readonly #transport: Transport;
  readonly #path: string;

  constructor(transport: Transport, projectPath: string) {
    this.#transport = transport;
    this.#path = `${projectPath}/changes`;
  }

  async page(options: ChangesPageOptions): Promise<ChangesPage<T>> {
    requireKnown('options', options, [...ABOUT, 'pageSize', 'waitS', ...CALL]);
    const { since, collection, documents, pageSize, waitS, ...call } = options;
    const { text } = await this.#transport.send({
      ...call,
      method: 'GET',
      path: this.#path,
      query: {
        since,
        collection,
        include: documents === true ? 'doc' : undefined,
        limit: requirePageSize(pageSize),
        wait: waitS,
      },
      isIdempotent: true,
    });
    const members = memberTexts(text);
    return {
      changes: elementTexts(members.get('changes') ?? '[]').map((one) => changeOf<T>(one)),
      since: JSON.parse(members.get('since') ?? '""') as string,
      more: members.has('more'),
    };
  }

  follow(options: FollowOptions): Following<T> {
    return new Following<T>((place) => this.#follow(options, place));
  }

  async *#follow(options: FollowOptions, place: FeedPosition): AsyncGenerator<Change<T>, void, void> {
    requireKnown('options', options, [...ABOUT, 'until', 'signal']);
    const { until = 'stream', signal, since, ...about } = options;
    if (!UNTIL.includes(until))
      throw new TypeError(`options.until: ${shown(until)}: unknown; known are ${UNTIL.join(', ')}`);
    place.since = since;
    if (until === 'stream') yield* this.#stream(about, place, signal);
    else yield* this.#pages(about, place, signal, until);
  }

  async *#pages(
    about: ChangesOptions,
    place: FeedPosition,
    signal: AbortSignal | undefined,
    until: 'poll' | 'end',
  ): AsyncGenerator<Change<T>, void, void> {
    const common = { ...about, signal, pageSize: PAGE, ...(until === 'poll' ? { waitS: POLL_S } : {}) };
    for (;;) {
      const deadlineMs = until === 'poll' ? POLL_S * 2_000 : undefined;
      const page = await this.page({ ...common, since: place.since, deadlineMs });
      yield* page.changes;
      place.since = page.since;
      if (until === 'end' && !page.more) return;
    }
  }

  /** Reconnects whenever the stream ends, with growing pauses, and resumes behind the last event. */
  async *#stream(
    about: ChangesOptions,
    place: FeedPosition,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Change<T>, void, void> {
    for (let failures = 0; ; ) {
      signal?.throwIfAborted();
      let failure: BundocError | undefined;
      const stop = new AbortController();
      const abort = () => stop.abort(signal?.reason);
      signal?.addEventListener('abort', abort, { once: true });
      try {
        for await (const { type, data, id } of this.#events(about, place.since, stop)) {
          failures = 0;
          if (id !== undefined) place.since = id;
          if (type === 'change') yield changeOf<T>(data);
        }
      } catch (error) {
        if (signal?.aborted === true) throw signal.reason;
        if (!(error instanceof BundocError) || !PASSING_STATUSES.has(error.status)) throw error;
        failure = error;
      } finally {
        signal?.removeEventListener('abort', abort);
        stop.abort();
      }
      await this.#transport.pause(
        this.#transport.backoffMs(++failures, failure?.retryAfterMs),
        signal ?? new AbortController().signal,
      );
    }
  }

  /** The events of one connection. @throws BundocError `network_error` when it breaks or falls silent. */
  async *#events(
    { collection, documents }: ChangesOptions,
    since: string | undefined,
    stop: AbortController,
  ) {
    const silent = () => stop.abort(new BundocError('network_error', { detail: 'the stream is silent' }));
    let timer = setTimeout(silent, SILENCE_MS);
    try {
      const body = await this.#transport.open(
        {
          method: 'GET',
          path: this.#path,
          query: { since, collection, include: documents === true ? 'doc' : undefined },
          headers: { accept: 'text/event-stream' },
          isIdempotent: true,
        },
        stop.signal,
      );
      const parser = new EventStreamParser();
      const decoder = new TextDecoder();
      const reader = body.getReader();
      for (;;) {
        const { done, value } = await read(reader, stop.signal);
        if (done) return;
        clearTimeout(timer);
        yield* parser.push(decoder.decode(value, { stream: true }));
        timer = setTimeout(silent, SILENCE_MS);
      }
    } finally {
      clearTimeout(timer);
    }
  }
}

/**
 * Changes as they happen. To resume from `since` misses nothing. It points behind the last change that was
 * consumed or, with pages, behind the last whole page.
 *
 * @example
 * ```ts
 * const changes = project.changes({ since: 'now' });
 * for await (const change of changes) if (change.deleted) break;
 * const later = project.changes({ since: changes.since });
 * for await (const change of later) console.log(change.id);
 * ```
 */
export class Following<T> implements AsyncIterable<Change<T>> {
  readonly #place: FeedPosition = { since: undefined };
  readonly #begin: (place: FeedPosition) => AsyncGenerator<Change<T>, void, void>;

  constructor(begin: (place: FeedPosition) => AsyncGenerator<Change<T>, void, void>) {
    this.#begin = begin;
  }

  get since(): string | undefined {
    return this.#place.since;
  }

  [Symbol.asyncIterator](): AsyncGenerator<Change<T>, void, void> {
    return this.#begin(this.#place);
  }
}

interface FeedPosition {
  since: string | undefined;
}

async function read(reader: ReadableStreamDefaultReader<Uint8Array>, signal: AbortSignal) {
  try {
    return await reader.read();
  } catch (cause) {
    if (signal.aborted) throw signal.reason;
    throw new BundocError('network_error', { cause, detail: 'the stream was cut short' });
  }
}

function changeOf<T>(text: string): Change<T> {
  const members = memberTexts(text);
  const nameOf = (member: string) => JSON.parse(members.get(member) ?? '""') as string;
  const documentText = members.get('doc');
  return {
    collection: nameOf('_collection'),
    id: nameOf('_id'),
    rev: nameOf('_rev'),
    deleted: members.get('deleted') === 'true',
    document: documentText === undefined ? undefined : new Document<T>(documentText),
    isUnreadable: members.get('unreadable') === 'true',
  };
}
