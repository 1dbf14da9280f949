import { Document } from './document.ts';
import { BundocError } from './error.ts';
import { EventStreamParser } from './event-stream.ts';
import { elementTexts, memberTexts } from './json-slices.ts';
import type { CallOptions, Transport } from './transport.ts';

export interface ChangesOptions {
  /** Where to begin: what a change or page gave as its place, or `now`. From the start when absent. */
  readonly since?: string | undefined;
  /** Changes of this collection only. */
  readonly collection?: string | undefined;
  /** Whether each change brings its document. */
  readonly documents?: boolean | undefined;
}

export interface ChangesPageOptions extends ChangesOptions, CallOptions {
  /** Changes of a page, 1 to 1,000; 100 by default. */
  readonly limit?: number | undefined;
  /** How long an empty page is held back until something happens, seconds, at most 50. */
  readonly waitS?: number | undefined;
}

export interface FollowOptions extends ChangesOptions {
  /**
   * `stream` (the default) and `poll` follow the feed for ever, `end` ends where it ends now. A stream is
   * told at once; long polls get through proxies that hold back streams.
   */
  readonly until?: 'stream' | 'poll' | 'end' | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What happened to a document last. */
export interface Change<T> {
  readonly collection: string;
  readonly id: string;
  readonly rev: string;
  readonly deleted: boolean;
  /**
   * The document, when it was asked for and there is one. Line breaks between the tokens of its text are
   * spaces.
   */
  readonly document: Document<T> | undefined;
  /** The document was asked for, and its stored bytes do not open. */
  readonly isUnreadable: boolean;
}

export interface ChangesPage<T> {
  readonly changes: readonly Change<T>[];
  /** Where to go on. */
  readonly since: string;
  /** True when there may be more at once. */
  readonly more: boolean;
}

/** Silence after which a stream counts as dead, milliseconds: three heartbeats. */
const SILENCE_MS = 45_000;
const POLL_S = 30;
const PAGE = 1_000;
/** Refusals of a stream after which coming back may help. */
const PASSING_STATUSES: ReadonlySet<number> = new Set([0, 429, 500, 502, 503, 504]);

/** Reads the feed of changes of one project. */
export class ChangesReader<T> {
  readonly #transport: Transport;
  readonly #path: string;

  constructor(transport: Transport, projectPath: string) {
    this.#transport = transport;
    this.#path = `${projectPath}/changes`;
  }

  async page({
    since,
    collection,
    documents,
    limit,
    waitS,
    ...call
  }: ChangesPageOptions): Promise<ChangesPage<T>> {
    const { text } = await this.#transport.send({
      ...call,
      method: 'GET',
      path: this.#path,
      query: { since, collection, include: documents === true ? 'doc' : undefined, limit, wait: waitS },
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

  async *#follow(options: FollowOptions, place: Place): AsyncGenerator<Change<T>, void, void> {
    const { until = 'stream', signal, since, ...about } = options;
    place.since = since;
    if (until === 'stream') yield* this.#stream(about, place, signal);
    else yield* this.#pages(about, place, signal, until);
  }

  async *#pages(
    about: ChangesOptions,
    place: Place,
    signal: AbortSignal | undefined,
    until: 'poll' | 'end',
  ): AsyncGenerator<Change<T>, void, void> {
    const common = { ...about, signal, limit: PAGE, ...(until === 'poll' ? { waitS: POLL_S } : {}) };
    for (;;) {
      const deadlineMs = until === 'poll' ? POLL_S * 2_000 : undefined;
      const page = await this.page({ ...common, since: place.since, deadlineMs });
      yield* page.changes;
      place.since = page.since;
      if (until === 'end' && !page.more) return;
    }
  }

  /** Comes back to where it was whenever the stream ends, with growing pauses. */
  async *#stream(
    about: ChangesOptions,
    place: Place,
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
 * Changes as they come. `since` is a place to go on from that misses nothing: behind the change that was
 * taken last, or, when they come in pages, behind the last whole page.
 */
export class Following<T> implements AsyncIterable<Change<T>> {
  readonly #place: Place = { since: undefined };
  readonly #begin: (place: Place) => AsyncGenerator<Change<T>, void, void>;

  constructor(begin: (place: Place) => AsyncGenerator<Change<T>, void, void>) {
    this.#begin = begin;
  }

  get since(): string | undefined {
    return this.#place.since;
  }

  [Symbol.asyncIterator](): AsyncGenerator<Change<T>, void, void> {
    return this.#begin(this.#place);
  }
}

interface Place {
  since: string | undefined;
}

async function read(reader: ReadableStreamDefaultReader<Uint8Array>, signal: AbortSignal) {
  try {
    return await reader.read();
  } catch (cause) {
    if (signal.aborted) throw signal.reason;
    throw new BundocError('network_error', { cause, detail: 'the stream broke off' });
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
