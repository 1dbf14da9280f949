import { setTimeout as delay } from 'node:timers/promises';
import type { SecureContextOptions } from 'node:tls';
import { AppError } from '@bundoc/shared/contract/app-error';
import { HEARTBEAT_MS } from '@bundoc/shared/contract/events';
import type { ProblemCode } from '@bundoc/shared/contract/problem';
import { backoffMs } from '@bundoc/shared/runtime/backoff';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { Logger } from '@bundoc/shared/runtime/logger';
import { TLS_VERSION_MIN, type WatchedTls } from '@bundoc/shared/tls/watched-tls';
import { Agent, buildConnector, type Dispatcher, request } from 'undici';
import { z } from 'zod';
import { KeyRefused } from './port.ts';

export interface KmsTransportOptions {
  /** BunKMS's internal listener. */
  readonly url: string;
  /**
   * The client's certificate, and the authorities that BunKMS's must come from; the system's own when absent.
   */
  readonly tls?: WatchedTls | undefined;
  /** The service token of the moment. */
  readonly token: () => string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Source of jitter, 0 to 1. */
  readonly random?: () => number;
  /**
   * Longest time that one call may take, with all its tries, milliseconds; {@link CALL_DEADLINE_MS} by
   * default.
   */
  readonly deadlineMs?: number;
  /** {@link STREAM_SILENT_MS} unless a test is in a hurry. */
  readonly streamSilentMs?: number;
}

/** How long a call may take unless somebody says otherwise, milliseconds. */
export const CALL_DEADLINE_MS = 4_500;
/** A try has a part of the deadline, so that there is time for another one. */
const CONNECT_PART = 2 / 9;
const ANSWER_PART = 4 / 9;
/** How long a stream of events may say nothing, milliseconds. */
const STREAM_SILENT_MS = 3 * HEARTBEAT_MS;
const ANSWER_BYTES_MAX = 65_536;
const RETRIES_MAX = 8;
const BACKOFF = { firstMs: 100, maxMs: 1_000 };
/** How long a caller is asked to wait when BunKMS did not say. */
export const RETRY_AFTER_S = 2;

/**
 * Answers by which BunKMS says that a key is not for us, or not to be had. A token that it does not know
 * (401) says nothing of the key.
 */
const REFUSALS: ReadonlySet<number> = new Set([403, 409, 410, 423]);

/** A failed try, and whether another may do better. */
class TryFailed extends Error {
  override readonly name = 'TryFailed';
  readonly retryable: boolean;
  readonly retryAfterS: number | undefined;
  /** BunKMS said that the key is not for us, or not to be had. */
  readonly isRefusal: boolean;

  constructor(
    message: string,
    retryable: boolean,
    options: ErrorOptions & { retryAfterS?: number | undefined; isRefusal?: boolean } = {},
  ) {
    super(message, { cause: options.cause });
    this.retryable = retryable;
    this.retryAfterS = options.retryAfterS;
    this.isRefusal = options.isRefusal ?? false;
  }
}

type Method = 'GET' | 'POST';

/** The status of an answer, or the code of a refusal that is as good. */
type Expected = number | ProblemCode;

interface Answer {
  readonly status: number;
  readonly body: Buffer;
}

/**
 * What BunKMS says of a key for good, and what that means to anyone who works with the project. No other try
 * would do better.
 */
const VERDICTS: Readonly<Record<string, ProblemCode>> = {
  key_not_found: 'key_not_found',
  key_version_destroyed: 'key_version_destroyed',
  key_damaged: 'key_damaged',
  key_destroyed: 'project_destroyed',
  key_disabled: 'project_disabled',
  key_pending_deletion: 'project_disabled',
  key_not_exportable: 'project_disabled',
  key_held_elsewhere: 'project_elsewhere',
  key_deletion_intended: 'project_deleting',
  key_unheld: 'key_unheld',
  key_not_offered: 'key_not_offered',
  storage_superseded: 'storage_superseded',
  storage_not_found: 'storage_not_found',
  precondition_failed: 'precondition_failed',
};

/** What is read of a refusal. */
const refusalSchema = z.object({
  code: z.string().transform((code) => code.slice(0, 64)),
  storage: z.uuid().optional().catch(undefined),
});
type Refusal = z.infer<typeof refusalSchema>;

/**
 * Sends calls to BunKMS over undici. Every call is idempotent, so network errors and 429, 502, 503 and 504
 * are tried again: exponential backoff with full jitter, `Retry-After` honoured as far as the deadline of
 * {@link KmsTransportOptions.deadlineMs} lets it, one deadline over all tries so that a frozen server cannot
 * hold a caller longer.
 */
export class KmsTransport {
  readonly #options: KmsTransportOptions;
  readonly #deadlineMs: number;
  readonly #agent: Agent;
  /** For answers that do not end by themselves. */
  readonly #streamAgent: Agent;
  /** Calls that are under way, with what resolves when each is over. */
  readonly #calls = new Map<AbortController, Promise<void>>();
  #isClosing = false;

  constructor(options: KmsTransportOptions) {
    this.#options = options;
    this.#deadlineMs = options.deadlineMs ?? CALL_DEADLINE_MS;
    const answerTimeoutMs = Math.round(this.#deadlineMs * ANSWER_PART);
    let connector = connectorOf({}, this.#connectTimeoutMs);
    // New connections use what the files hold now; those that stand keep what they began with.
    options.tls?.follow((context) => {
      connector = connectorOf(context, this.#connectTimeoutMs);
    });
    const connect: buildConnector.connector = (to, done) => connector(to, done);
    this.#streamAgent = new Agent({
      connect,
      headersTimeout: answerTimeoutMs,
      bodyTimeout: options.streamSilentMs ?? STREAM_SILENT_MS,
      connections: 1,
    });
    this.#agent = new Agent({
      connect,
      headersTimeout: answerTimeoutMs,
      bodyTimeout: answerTimeoutMs,
      maxResponseSize: ANSWER_BYTES_MAX,
      connections: 16,
    });
  }

  /** Whether BunKMS is ready to hand out keys, asked once and briefly. */
  async isUp(): Promise<boolean> {
    try {
      const { statusCode, body } = await request(new URL('/ready', this.#options.url), {
        dispatcher: this.#agent,
        signal: AbortSignal.timeout(this.#connectTimeoutMs),
      });
      await body.dump();
      return statusCode === 200;
    } catch {
      return false;
    }
  }

  /**
   * Opens the stream of events, behind the event with this id. One that is silent for
   * {@link STREAM_SILENT_MS} ends with an error.
   *
   * @throws Error when it cannot be opened, on the first try.
   */
  async openEvents(lastEventId: string | undefined, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
    const { statusCode, body } = await request(new URL('/v1/events', this.#options.url), {
      dispatcher: this.#streamAgent,
      signal,
      headers: {
        authorization: `Bearer ${this.#options.token()}`,
        ...(lastEventId === undefined ? {} : { 'last-event-id': lastEventId }),
      },
    });
    if (statusCode === 200) return body;
    throw new Error(answerLine(statusCode, refusalIn(await takeBytes(body))?.code));
  }

  /** Ends the calls that are under way. Resolves once they are over. */
  async close(): Promise<void> {
    this.#isClosing = true;
    for (const call of this.#calls.keys()) call.abort();
    await Promise.all([this.#agent.destroy(), this.#streamAgent.destroy(), ...this.#calls.values()]);
  }

  /**
   * @param expected answers that the caller reads; any other is an error.
   * @throws AppError `kms_unavailable`, or what BunKMS says of a key for good.
   */
  async call(
    method: Method,
    path: string,
    expected: readonly Expected[],
    body?: unknown,
    retries = RETRIES_MAX,
  ): Promise<Answer> {
    const { promise: over, resolve } = Promise.withResolvers<void>();
    const call = new AbortController();
    const { signal } = call;
    this.#calls.set(call, over);
    const timer = setTimeout(() => call.abort(), this.#deadlineMs);
    try {
      return await this.#retry(() => this.#try(method, path, expected, body, signal), retries, signal);
    } catch (error) {
      if (error instanceof AppError) throw error;
      if (!this.#isClosing)
        this.#options.logger.warn({ err: error, method, path: path.split('/')[2] }, 'call to BunKMS failed');
      const retryAfterS = error instanceof TryFailed ? error.retryAfterS : undefined;
      const isRefused = error instanceof TryFailed && error.isRefusal;
      throw new AppError('kms_unavailable', {
        cause: isRefused ? new KeyRefused(error.message) : error,
        retryAfterS: retryAfterS ?? RETRY_AFTER_S,
      });
    } finally {
      clearTimeout(timer);
      this.#calls.delete(call);
      resolve();
    }
  }

  get #connectTimeoutMs(): number {
    return Math.round(this.#deadlineMs * CONNECT_PART);
  }

  /** Tries again while another try may do better and starts before the deadline. */
  async #retry<T>(attempt: () => Promise<T>, retries: number, signal: AbortSignal): Promise<T> {
    const { clock, random } = this.#options;
    const deadlineAt = clock.monotonic() + this.#deadlineMs;
    for (let failures = 1; ; failures++) {
      try {
        return await attempt();
      } catch (error) {
        if (this.#isClosing || !(error instanceof TryFailed) || !error.retryable) throw error;
        if (failures > retries) throw error;
        const waitMs = (error.retryAfterS ?? 0) * 1_000 + backoffMs(BACKOFF, failures, random);
        if (clock.monotonic() + waitMs >= deadlineAt) throw error;
        await delay(waitMs, undefined, { signal });
      }
    }
  }

  async #try(
    method: Method,
    path: string,
    expected: readonly Expected[],
    body: unknown,
    signal: AbortSignal,
  ): Promise<Answer> {
    let response: Dispatcher.ResponseData;
    let bytes: Buffer;
    try {
      response = await request(new URL(path, this.#options.url), {
        dispatcher: this.#agent,
        method,
        signal,
        headers: {
          authorization: `Bearer ${this.#options.token()}`,
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        body: body === undefined ? null : JSON.stringify(body),
      });
      bytes = await takeBytes(response.body);
    } catch (error) {
      throw new TryFailed('no answer', true, { cause: error });
    }
    const status = response.statusCode;
    if (expected.includes(status)) return { status, body: bytes };
    const refusal = refusalIn(bytes);
    const code = refusal?.code;
    if (code !== undefined && expected.includes(code as ProblemCode)) return { status, body: bytes };
    const verdict = code === undefined ? undefined : VERDICTS[code];
    if (verdict !== undefined)
      throw new AppError(verdict, {
        cause: new Error(`BunKMS answered ${code}`),
        storage: refusal?.storage,
        ...(refusal?.storage === undefined ? {} : { detail: `storage ${refusal.storage} holds it` }),
      });
    // A sealed service needs its operator; it will not come round within our deadline.
    const retryable = [429, 502, 503, 504].includes(status) && code !== 'sealed';
    throw new TryFailed(answerLine(status, code), retryable, {
      retryAfterS: retryAfterOf(response.headers['retry-after']),
      isRefusal: code !== undefined && REFUSALS.has(status),
    });
  }
}

/**
 * Connections with a time limit. `minVersion` and the like come from the context; plain HTTP takes no notice
 * of them. The certificate is checked whatever `NODE_TLS_REJECT_UNAUTHORIZED` says: keys come over this
 * connection.
 */
function connectorOf(context: SecureContextOptions, timeoutMs: number): buildConnector.connector {
  return buildConnector({
    timeout: timeoutMs,
    minVersion: TLS_VERSION_MIN,
    ...context,
    rejectUnauthorized: true,
  });
}

/** What BunKMS answered, and what somebody has to do about it where no other try would do better. */
function answerLine(status: number, code: string | undefined): string {
  const remedy = REMEDIES[`${status} ${code}`];
  return `BunKMS answered ${status}${code === undefined ? '' : ` ${code}`}${remedy === undefined ? '' : `: ${remedy}`}`;
}

const REMEDIES: Readonly<Record<string, string>> = {
  '401 unauthenticated':
    'the service token has ended, was revoked, or is of another installation; put a new one into BUNDOC_KMS_TOKEN_FILE, which is read again by itself (bunkms init --service-token)',
  '403 forbidden':
    "the service token is not for this key, or lacks a scope; BUNDOC_KMS_TOKEN_FILE must hold Bundoc's (bunkms init --service-token)",
  '404 not_found': 'BUNDOC_KMS_URL must be the internal listener of BunKMS',
  '503 sealed':
    'BunKMS was started with another KEK than its store was made with; its log says which one it needs',
};

/** The whole body in one buffer of its own; what it arrived in is wiped, since it may be a key. */
async function takeBytes(body: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of body) chunks.push(chunk);
    return Buffer.concat(chunks);
  } finally {
    for (const chunk of chunks) chunk.fill(0);
  }
}

function refusalIn(body: Buffer): Refusal | undefined {
  try {
    return refusalSchema.parse(JSON.parse(body.toString('utf8')));
  } catch {
    return undefined;
  }
}

function retryAfterOf(header: string | string[] | undefined): number | undefined {
  return typeof header === 'string' && /^\d{1,5}$/.test(header) ? Number(header) : undefined;
}
