import { BundocError, errorOf } from './error.ts';
import { requireKnown } from './options.ts';
import { type TokenProvider, TokenSource } from './token-source.ts';

/** Options of every call. */
export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** For the call with all its retries, milliseconds; the client's by default. `Infinity` for no deadline. */
  readonly deadlineMs?: number | undefined;
}

export interface TransportOptions {
  /** Where Bundoc listens, with a path before `/v1` if there is one: `https://docs.example.org`. */
  readonly url: string;
  /**
   * A token with the scopes that the calls need, or a function that returns one. The client calls the
   * function before the token expires, and once when the service refuses it (401). Concurrent requests share
   * one call.
   */
  readonly token: string | TokenProvider;
  /** The platform's by default. */
  readonly fetch?: typeof globalThis.fetch;
  /** Longest time of a call with all its retries, milliseconds; 30,000 by default. */
  readonly deadlineMs?: number;
  /** Tries of a call at most; 8 by default. 1 turns retries off. */
  readonly triesMax?: number;
  /** What a test may replace. */
  readonly random?: () => number;
  readonly pause?: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly now?: () => number;
}

export interface Request extends CallOptions {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** Below `/v1`, with its leading slash and percent-encoded. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string | number | undefined>> | undefined;
  readonly headers?: Readonly<Record<string, string | undefined>> | undefined;
  readonly body?: string | undefined;
  /** Whether repeating it has no further effect. */
  readonly isIdempotent: boolean;
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

const OWN = ['url', 'token', 'fetch', 'deadlineMs', 'triesMax'] as const;
const OPTIONS: readonly (keyof TransportOptions)[] = [...OWN, 'random', 'pause', 'now'];
const DEADLINE_MS = 30_000;
/** The longest delay of a timer. A longer one would end at once. */
const TIMER_MS_MAX = 2_147_483_647;
const TRIES_MAX = 8;
const BACKOFF_FIRST_MS = 100;
const BACKOFF_MAX_MS = 5_000;

const RETRIED_STATUSES: ReadonlySet<number> = new Set([429, 502, 503, 504]);
/** Codes with a retryable status that a retry cannot cure. */
const LASTING: ReadonlySet<string> = new Set([
  'key_missing',
  'key_damaged',
  'key_mismatch',
  'key_exhausted',
  'project_damaged',
]);

/**
 * HTTP with retries. It retries idempotent requests on 429, 502, 503, 504 and when a connection fails. Pauses
 * grow, have full jitter and honour `Retry-After`. It does not begin a pause that would pass the deadline.
 */
export class Transport {
  readonly #options: TransportOptions;
  readonly #url: string;
  readonly #tokens: TokenSource;
  /** This page has read an answer, so CORS is set up, and a failure is one of the network. */
  #hasAnswered = false;

  constructor(options: TransportOptions) {
    requireKnown('options', options, OPTIONS);
    this.#options = options;
    this.#tokens = new TokenSource(options.token, options.now);
    const url = URL.canParse(options.url) ? new URL(options.url) : undefined;
    if (url === undefined || !/^https?:$/.test(url.protocol))
      throw new TypeError(`url: "${options.url}" is no http or https URL, such as https://docs.example.org`);
    this.#url = `${url.origin}${url.pathname.replace(/\/+$/, '')}`;
  }

  /** @throws BundocError for a refusal or no answer; the signal's reason when that was aborted. */
  async send(request: Request): Promise<Answer> {
    const { deadlineMs = request.deadlineMs ?? this.#options.deadlineMs ?? DEADLINE_MS } = request;
    const triesMax = request.isIdempotent ? (this.#options.triesMax ?? TRIES_MAX) : 1;
    const endMs = performance.now() + deadlineMs;
    request.signal?.throwIfAborted();
    const stop = new AbortController();
    const abort = () => stop.abort(request.signal?.reason);
    request.signal?.addEventListener('abort', abort, { once: true });
    const expire = () =>
      stop.abort(new BundocError('deadline_exceeded', { detail: `not done within ${deadlineMs} ms` }));
    const timer = deadlineMs > TIMER_MS_MAX ? undefined : setTimeout(expire, deadlineMs);
    try {
      for (let tried = 1; ; tried++) {
        const outcome = await this.#try(request, stop.signal);
        if (!(outcome instanceof BundocError)) return outcome;
        const pauseMs = this.backoffMs(tried, outcome.retryAfterMs);
        if (tried === triesMax || !isPassing(outcome) || performance.now() + pauseMs >= endMs) throw outcome;
        await this.pause(pauseMs, stop.signal);
      }
    } finally {
      clearTimeout(timer);
      request.signal?.removeEventListener('abort', abort);
    }
  }

  /**
   * Opens an answer whose body is streamed; no retries.
   *
   * @throws as {@link send}.
   */
  async open(request: Request, signal: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    const response = await this.#fetch(request, signal);
    if (!response.ok) throw this.#errorOf(response, await textOf(response, signal));
    if (response.body === null) throw new BundocError('unexpected_answer', { status: response.status });
    return response.body;
  }

  /** Full jitter below a bound that doubles with each failure, but at least the server's `Retry-After`. */
  backoffMs(failures: number, retryAfterMs = 0): number {
    const { random = Math.random } = this.#options;
    const boundMs = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** Math.min(failures - 1, 20));
    return retryAfterMs + random() * boundMs;
  }

  async pause(ms: number, signal: AbortSignal): Promise<void> {
    await (this.#options.pause ?? wait)(ms, signal);
    signal.throwIfAborted();
  }

  /** @returns a failure that may be retried; throws any other. */
  async #try(request: Request, signal: AbortSignal): Promise<Answer | BundocError> {
    try {
      const response = await this.#fetch(request, signal);
      const text = await textOf(response, signal);
      const { status, headers } = response;
      if (!response.ok && status !== 304) return this.#errorOf(response, text);
      // A sign-in page of a proxy comes with status 200, too.
      if (text !== '' && headers.get('content-type')?.startsWith('application/json') !== true)
        return new BundocError('unexpected_answer', { status, detail: 'the answer is not JSON' });
      return { status, headers, text };
    } catch (error) {
      if (error instanceof BundocError) return error;
      throw error;
    }
  }

  #errorOf({ status, headers }: Response, text: string): BundocError {
    return errorOf(status, headers, text, {
      not_found: `is ${this.#url} the URL of Bundoc, without a path?`,
      unauthenticated: this.#tokens.fault(),
    });
  }

  /**
   * Retries once with a new token when the service refuses the present one.
   *
   * @throws BundocError `network_error`, `cors_refused`; the signal's reason.
   */
  async #fetch(request: Request, signal: AbortSignal): Promise<Response> {
    const token = await unlessAborted(this.#tokens.current(), signal);
    const response = await this.#fetchWith(token, request, signal);
    if (response.status !== 401) return response;
    const next = await unlessAborted(this.#tokens.after(token), signal);
    if (next === undefined) return response;
    await response.body?.cancel();
    return this.#fetchWith(next, request, signal);
  }

  async #fetchWith(
    token: string,
    { method, path, query = {}, headers = {}, body }: Request,
    signal: AbortSignal,
  ): Promise<Response> {
    const { fetch = globalThis.fetch } = this.#options;
    const url = new URL(`${this.#url}/v1${path}`);
    for (const [name, value] of Object.entries(query))
      if (value !== undefined) url.searchParams.set(name, String(value));
    const all = new Headers({ authorization: `Bearer ${token}` });
    for (const [name, value] of Object.entries(headers)) if (value !== undefined) all.set(name, value);
    if (body !== undefined && !all.has('content-type')) all.set('content-type', 'application/json');
    try {
      const response = await fetch(url, {
        method,
        headers: all,
        signal,
        redirect: 'error',
        cache: 'no-store',
        ...(body === undefined ? {} : { body }),
      });
      this.#hasAnswered = true;
      return response;
    } catch (cause) {
      const page = this.#hasAnswered ? undefined : pageOrigin(url);
      if (page !== undefined && !signal.aborted && (await this.#answersUnread(url.origin, signal)))
        throw new BundocError('cors_refused', {
          cause,
          detail: `${url.origin} answered, but does not let pages of ${page} read the answer: add ${page} to its BUNDOC_CORS_ORIGINS`,
        });
      throw failureOf(cause, signal, `there is no answer from ${url.origin}${reasonOf(cause)}`);
    }
  }

  /** Whether the service answers a request whose answer the page cannot read. */
  async #answersUnread(origin: string, signal: AbortSignal): Promise<boolean> {
    const { fetch = globalThis.fetch } = this.#options;
    try {
      await fetch(`${origin}/health`, { mode: 'no-cors', cache: 'no-store', credentials: 'omit', signal });
      return true;
    } catch {
      return false;
    }
  }
}

/**
 * The origin of the page that runs this code, if it differs from the service's; undefined outside browsers.
 */
function pageOrigin(url: URL): string | undefined {
  const origin = (globalThis as { location?: { origin?: string } }).location?.origin;
  return origin === url.origin ? undefined : origin;
}

/** @throws the signal's reason once it is aborted. The promise is then left to settle unobserved. */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason as Error);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

async function textOf(response: Response, signal: AbortSignal): Promise<string> {
  try {
    return await response.text();
  } catch (cause) {
    throw failureOf(cause, signal, 'the answer was cut short');
  }
}

function failureOf(cause: unknown, signal: AbortSignal, detail: string): unknown {
  if (signal.aborted) return signal.reason;
  return new BundocError('network_error', { cause, detail });
}

/** The system's code of a failed connection, in parentheses: `ECONNREFUSED`. Browsers give none. */
function reasonOf(failure: unknown): string {
  const { cause } = failure as { readonly cause?: { readonly code?: unknown } };
  return typeof cause?.code === 'string' ? ` (${cause.code})` : '';
}

function isPassing({ code, status }: BundocError): boolean {
  return code === 'network_error' || (RETRIED_STATUSES.has(status) && !LASTING.has(code));
}

function wait(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done);
  });
}
