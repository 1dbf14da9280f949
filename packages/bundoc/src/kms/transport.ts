import { setTimeout as delay } from 'node:timers/promises';
import type { SecureContextOptions } from 'node:tls';
import { AppError } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import { HEARTBEAT_MS } from '@bundoc/shared/contract/events';
import { outsideNameSchema } from '@bundoc/shared/contract/keys';
import { parseReceipts, RECEIPT_HEADER } from '@bundoc/shared/contract/kms-receipt';
import type { ProblemCode } from '@bundoc/shared/contract/problem';
import { type Answering, answeringSchema } from '@bundoc/shared/contract/service-info';
import { parseJson } from '@bundoc/shared/json/parse-json';
import type { Logger } from '@bundoc/shared/logs/logger';
import { backoffMs } from '@bundoc/shared/runtime/backoff';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { TLS_VERSION_MIN, type WatchedTls } from '@bundoc/shared/tls/watched-tls';
import { Agent, buildConnector, type Dispatcher, request } from 'undici';
import { z } from 'zod';
import type { ClockSkew } from './clock-skew.ts';
import { awayDetail } from './outside-keys.ts';
import { KeyRefused } from './port.ts';
import { type Receipts, recordsOf } from './receipts.ts';
import { TurnsOfCustomers } from './turns-of-customers.ts';

export interface KmsTransportOptions {
  /** BunKMS's internal listener. */
  readonly url: string;
  /** The client's certificate, and the authorities of BunKMS's certificate: the system's when absent. */
  readonly tls?: WatchedTls | undefined;
  /** Returns the current service token. */
  readonly token: () => string;
  /** Takes the receipts of answers, and returns them with later requests; commands have none. */
  readonly receipts?: Receipts | undefined;
  /** Takes the dates of answers; commands have none. */
  readonly skew?: ClockSkew | undefined;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Source of jitter, 0 to 1. */
  readonly random?: () => number;
  /** Deadline of one call with all its tries, milliseconds; {@link CALL_DEADLINE_MS} by default. */
  readonly deadlineMs?: number;
  /** {@link STREAM_SILENT_MS} by default; tests set less. */
  readonly streamSilentMs?: number;
}

/** The default deadline of a call, milliseconds. */
export const CALL_DEADLINE_MS = 4_500;
/** A try gets a part of the deadline, so that there is time for another one. */
const CONNECT_PART = 2 / 9;
const ANSWER_PART = 4 / 9;
/** Two calls of an outside key fit in it, of 1.5 s each: a new version is wrapped, and opened once. */
const OUTSIDE_ANSWER_PART = 7 / 9;
/** A stream of events that is silent for this time counts as dead, milliseconds. */
const STREAM_SILENT_MS = 3 * HEARTBEAT_MS;
const ANSWER_BYTES_MAX = 65_536;
const RETRIES_MAX = 8;
const BACKOFF = { firstMs: 100, maxMs: 1_000 };
/** The time to retry when BunKMS names none. */
export const RETRY_AFTER_S = 2;

/**
 * Statuses with which BunKMS refuses a key to this service. 401 is none of them: it says nothing about the
 * key.
 */
const REFUSALS: ReadonlySet<number> = new Set([403, 409, 410]);

/** A failed try, and whether another one may succeed. */
class TryFailed extends Error {
  override readonly name = 'TryFailed';
  readonly retryable: boolean;
  readonly retryAfterS: number | undefined;
  /** Whether BunKMS refused the key. */
  readonly isRefusal: boolean;
  /** The outside key that failed. */
  readonly outsideKey: string | undefined;

  constructor(
    message: string,
    retryable: boolean,
    options: ErrorOptions & {
      retryAfterS?: number | undefined;
      isRefusal?: boolean;
      outsideKey?: string | undefined;
    } = {},
  ) {
    super(message, { cause: options.cause });
    this.retryable = retryable;
    this.retryAfterS = options.retryAfterS;
    this.isRefusal = options.isRefusal ?? false;
    this.outsideKey = options.outsideKey;
  }
}

type Method = 'GET' | 'POST';

/**
 * Calls that have connections of their own: `customers` for keys that an outside key protects as well, and
 * `creations`, because a key may be under one from its birth. What is asked there may hang.
 */
type Lane = 'ordinary' | 'creations' | 'customers';
const CONNECTIONS_OF_LANE = 16;

export interface CallOptions {
  /** {@link RETRIES_MAX} by default. */
  readonly retries?: number;
  /** `ordinary` by default. */
  readonly lane?: Lane;
  /** The outside key that is asked on the lane of customers; empty while it is unknown. */
  readonly outsideKey?: string;
}

/** One call. */
interface Call {
  readonly method: Method;
  readonly path: string;
  readonly expected: readonly Expected[];
  readonly body: unknown;
  readonly signal: AbortSignal;
  readonly dispatcher: Agent;
}

/** The status of an answer, or the code of a refusal that the caller accepts as a result. */
export type Expected = number | ProblemCode;

interface Answer {
  readonly status: number;
  readonly body: Buffer;
  /** When the caller may retry, if BunKMS says so. */
  readonly retryAfterS: number | undefined;
}

/** What BunKMS answered to one request. */
interface Reply<T> {
  readonly status: number;
  readonly headers: Dispatcher.ResponseData['headers'];
  readonly body: T;
  /** In the body of a refusal that the caller does not expect. */
  readonly refusal?: Refusal | undefined;
}

/** The final refusals of BunKMS, and the code that callers of the project get. Another try would not help. */
const VERDICTS: Readonly<Record<string, ProblemCode>> = {
  key_not_found: 'key_not_found',
  key_version_destroyed: 'key_version_destroyed',
  key_damaged: 'key_damaged',
  key_destroyed: 'project_destroyed',
  key_disabled: 'project_disabled',
  key_pending_deletion: 'project_disabled',
  key_not_exportable: 'project_disabled',
  outside_key_denied: 'project_disabled',
  key_held_elsewhere: 'project_elsewhere',
  key_deletion_intended: 'project_deleting',
  key_unheld: 'key_unheld',
  key_not_offered: 'key_not_offered',
  storage_superseded: 'storage_superseded',
  storage_not_found: 'storage_not_found',
  precondition_failed: 'precondition_failed',
};

/** An operator must act first, or the holder of an outside key: nothing changes within the deadline. */
const FINAL: ReadonlySet<string> = new Set(['sealed', 'outside_key_unavailable', 'outside_key_changed']);
/** Of an outside key as a whole, not of one key that it protects. */
const OUTSIDE_FAILURES: ReadonlySet<string> = new Set(['outside_key_denied', 'outside_key_unavailable']);

/** The member of `/ready` that is read. */
const readySchema = z.object({ service: answeringSchema.optional().catch(undefined) });

function wrongService(answering: Answering): TryFailed {
  const what = answering === 'bunkms' ? 'the API listener of BunKMS, which releases no keys' : 'Bundoc';
  return new TryFailed(`BUNDOC_KMS_URL is that of ${what}: give that of the internal listener`, true);
}

/** The members of a refusal that are read. */
const refusalSchema = z.object({
  code: z.string().transform((code) => code.slice(0, 64)),
  storage: z.uuid().optional().catch(undefined),
  outside_key: outsideNameSchema.optional().catch(undefined),
});
type Refusal = z.infer<typeof refusalSchema>;

/**
 * Sends calls to BunKMS over undici. Calls are idempotent. They are retried after network errors, 429, 502,
 * 503 and 504, but not after the codes in {@link FINAL}, and not if the caller wants no retries. Retries have
 * exponential backoff and full jitter, and honour `Retry-After` up to the deadline.
 * One deadline covers all tries, so a frozen server cannot delay a caller longer.
 *
 * Every call carries the kept receipts, the stream of events included, but not {@link outage}: that is a
 * probe without a token, which planted receipts must not fail.
 */
export class KmsTransport {
  readonly #options: KmsTransportOptions;
  readonly #deadlineMs: number;
  readonly #agents: Readonly<Record<Lane, Agent>>;
  readonly #turns: TurnsOfCustomers;
  /** For answers without an end. */
  readonly #streamAgent: Agent;
  /** The running calls, each with a promise that resolves at its end. */
  readonly #calls = new Map<AbortController, Promise<void>>();
  #isClosing = false;

  constructor(options: KmsTransportOptions) {
    this.#options = options;
    this.#deadlineMs = options.deadlineMs ?? CALL_DEADLINE_MS;
    const answerTimeoutMs = Math.round(this.#deadlineMs * ANSWER_PART);
    let connector = connectorOf({}, this.#connectTimeoutMs);
    // New connections use the current files; established ones keep their certificates.
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
    const ofLane = (part: number) => {
      const timeoutMs = Math.round(this.#deadlineMs * part);
      return new Agent({
        connect,
        headersTimeout: timeoutMs,
        bodyTimeout: timeoutMs,
        maxResponseSize: ANSWER_BYTES_MAX,
        connections: CONNECTIONS_OF_LANE,
      });
    };
    this.#agents = {
      ordinary: ofLane(ANSWER_PART),
      creations: ofLane(OUTSIDE_ANSWER_PART),
      customers: ofLane(OUTSIDE_ANSWER_PART),
    };
    this.#turns = new TurnsOfCustomers(CONNECTIONS_OF_LANE, this.#deadlineMs, options.clock);
  }

  /**
   * Why BunKMS is not ready to release keys; undefined when it is. Asks once, with a short timeout. Its API
   * listener releases none.
   */
  async outage(): Promise<unknown> {
    const measure = this.#options.skew?.begin();
    try {
      const { statusCode, headers, body } = await request(new URL('/ready', this.#options.url), {
        dispatcher: this.#agents.ordinary,
        signal: AbortSignal.timeout(this.#connectTimeoutMs),
      });
      if (statusCode === 200) measure?.(headers);
      const answering = readySchema.safeParse(parseJson((await takeBytes(body)).toString())).data?.service;
      if (answering !== undefined && answering !== 'bunkms-internal') return wrongService(answering);
      if (statusCode === 200) return undefined;
      // A BunKMS that is not ready, sealed for example, answers 503.
      const remedy = statusCode === 503 ? 'its own log says why' : 'is it the internal listener of BunKMS?';
      return new TryFailed(`/ready answered ${statusCode}: ${remedy}`, true);
    } catch (error) {
      return error;
    }
  }

  /**
   * Opens the stream of events after the event with this id. A stream that is silent for {@link
   * STREAM_SILENT_MS} ends with an error.
   *
   * @throws Error when the first try cannot open it.
   */
  async openEvents(lastEventId: string | undefined, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
    const { status, body, refusal, receipts } = await this.#withReceipts(async (sent) => {
      const measure = this.#options.skew?.begin();
      const { statusCode, headers, body } = await request(new URL('/v1/events', this.#options.url), {
        dispatcher: this.#streamAgent,
        signal,
        headers: {
          authorization: `Bearer ${this.#options.token()}`,
          ...defined({ 'last-event-id': lastEventId, [RECEIPT_HEADER]: sent }),
        },
      });
      if (statusCode === 200) measure?.(headers);
      const refusal = statusCode === 200 ? undefined : refusalIn(await takeBytes(body));
      return { status: statusCode, headers, body, refusal };
    });
    if (status === 200) return body;
    throw new Error(answerLine(status, refusal?.code, receipts));
  }

  /** Aborts the running calls. Resolves once they have ended. */
  async close(): Promise<void> {
    this.#isClosing = true;
    for (const call of this.#calls.keys()) call.abort();
    const agents = [...Object.values(this.#agents), this.#streamAgent];
    await Promise.all([...agents.map((agent) => agent.destroy()), ...this.#calls.values()]);
  }

  /**
   * @param expected the answers that the caller reads; any other is an error.
   * @throws AppError `kms_unavailable`, or the code of a final refusal.
   */
  async call(
    method: Method,
    path: string,
    expected: readonly Expected[],
    body?: unknown,
    { retries = RETRIES_MAX, lane = 'ordinary', outsideKey = '' }: CallOptions = {},
  ): Promise<Answer> {
    const { promise: over, resolve } = Promise.withResolvers<void>();
    const call = new AbortController();
    const { signal } = call;
    this.#calls.set(call, over);
    const timer = setTimeout(() => call.abort(), this.#deadlineMs);
    try {
      const asked = { method, path, expected, body, signal, dispatcher: this.#agents[lane] };
      const run = () => this.#retry(() => this.#try(asked), retries, signal);
      return await (lane === 'customers' ? this.#turns.run(outsideKey, run, signal) : run());
    } catch (error) {
      if (error instanceof AppError) throw error;
      if (!this.#isClosing)
        this.#options.logger.warn(
          { err: error, method, url: new URL(this.#options.url).origin, path: path.split('/')[2] },
          'call to BunKMS failed',
        );
      const { retryAfterS, outsideKey } = error instanceof TryFailed ? error : {};
      throw new AppError('kms_unavailable', {
        cause: causeOf(error),
        retryAfterS: retryAfterS ?? RETRY_AFTER_S,
        outsideKey,
        detail: outsideKey === undefined ? undefined : awayDetail(outsideKey),
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

  /** Retries while another try may succeed and can start before the deadline. */
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

  async #try(call: Call): Promise<Answer> {
    const { expected } = call;
    const reply = await this.#withReceipts((sent) => this.#send(call, sent));
    const { status, refusal } = reply;
    const retryAfterS = retryAfterOf(reply.headers['retry-after']);
    const code = refusal?.code;
    if (expected.includes(status) || (code !== undefined && expected.includes(code as ProblemCode)))
      return { status, body: reply.body, retryAfterS };
    const verdict = code === undefined ? undefined : VERDICTS[code];
    if (verdict !== undefined)
      throw new AppError(verdict, {
        cause: new Error(`BunKMS answered ${code}`),
        outsideKey: outsideKeyOf(refusal),
        storage: refusal?.storage,
        detail: detailOf(refusal),
      });
    const retryable = [429, 502, 503, 504].includes(status) && !FINAL.has(code ?? '');
    throw new TryFailed(answerLine(status, code, reply.receipts), retryable, {
      outsideKey: outsideKeyOf(refusal),
      retryAfterS,
      isRefusal: code !== undefined && REFUSALS.has(status),
    });
  }

  /** @param receipts the header to send. @throws TryFailed without an answer. */
  async #send(call: Call, receipts: string | undefined): Promise<Reply<Buffer>> {
    const { method, path, expected, body, signal, dispatcher } = call;
    const measure = this.#options.skew?.begin();
    try {
      const response = await request(new URL(path, this.#options.url), {
        dispatcher,
        method,
        signal,
        headers: {
          authorization: `Bearer ${this.#options.token()}`,
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          ...defined({ [RECEIPT_HEADER]: receipts }),
        },
        body: body === undefined ? null : JSON.stringify(body),
      });
      const { statusCode: status, headers } = response;
      // Any other answer may be that of a proxy.
      if (expected.includes(status)) measure?.(headers);
      const bytes = await takeBytes(response.body);
      // An expected answer may hold a key, which must not become a string.
      if (!expected.includes(status)) return { status, headers, body: bytes, refusal: refusalIn(bytes) };
      this.#options.receipts?.take(headers[RECEIPT_HEADER]);
      return { status, headers, body: bytes };
    } catch (error) {
      throw new TryFailed('no answer', true, { cause: error });
    }
  }

  /**
   * Sends a request with the kept receipts. If BunKMS refuses these, they are forgotten, and the request is
   * sent once more without them: BunKMS has done nothing yet.
   *
   * @param send gets the header to send.
   * @returns the reply, and the header that it answers.
   */
  async #withReceipts<T>(
    send: (sent: string | undefined) => Promise<Reply<T>>,
  ): Promise<Reply<T> & { readonly receipts: string | undefined }> {
    const { receipts: kept } = this.#options;
    const sent = kept?.header();
    const reply = await send(sent);
    if (sent === undefined || reply.refusal?.code !== 'receipt_invalid') return { ...reply, receipts: sent };
    kept?.forget(sent);
    return { ...(await send(undefined)), receipts: undefined };
  }
}

/** Why there was no usable answer, for callers that tell causes apart. */
function causeOf(error: unknown): unknown {
  if (!(error instanceof TryFailed)) return error;
  return error.isRefusal ? new KeyRefused(error.message) : error;
}

function detailOf(refusal: Refusal | undefined): string | undefined {
  if (refusal?.storage !== undefined) return `storage ${refusal.storage} holds it`;
  const outsideKey = outsideKeyOf(refusal);
  return outsideKey === undefined
    ? undefined
    : `the customer denies the use of the outside key ${outsideKey}`;
}

/** The outside key that failed as a whole. */
function outsideKeyOf(refusal: Refusal | undefined): string | undefined {
  return refusal !== undefined && OUTSIDE_FAILURES.has(refusal.code) ? refusal.outside_key : undefined;
}

/**
 * Connections with a timeout. TLS options come from the context; plain HTTP ignores them. The certificate is
 * verified even if `NODE_TLS_REJECT_UNAUTHORIZED` is 0, because keys come over this connection.
 */
function connectorOf(context: SecureContextOptions, timeoutMs: number): buildConnector.connector {
  return buildConnector({
    timeout: timeoutMs,
    minVersion: TLS_VERSION_MIN,
    ...context,
    rejectUnauthorized: true,
  });
}

/**
 * The answer of BunKMS as a message, with what to do if another try would not help.
 *
 * @param receipts those that BunKMS was sent.
 */
function answerLine(status: number, code: string | undefined, receipts: string | undefined): string {
  const remedy = REMEDIES[`${status} ${code}`];
  const line = `BunKMS answered ${status}${code === undefined ? '' : ` ${code}`}${remedy === undefined ? '' : `: ${remedy}`}`;
  const sent = code === 'sealed' && receipts !== undefined ? parseReceipts(receipts) : undefined;
  return sent === undefined ? line : `${line}; Bundoc has receipts of ${recordsOf(sent)}`;
}

const REMEDIES: Readonly<Record<string, string>> = {
  '401 unauthenticated':
    'the service token has ended, was revoked, or is of another installation; put a new one into BUNDOC_KMS_TOKEN_FILE, which is read again by itself (bunkms init --service-token)',
  '403 forbidden':
    "the service token is not for this key, or lacks a scope; BUNDOC_KMS_TOKEN_FILE must hold Bundoc's (bunkms init --service-token)",
  '404 not_found': 'BUNDOC_KMS_URL must be the internal listener of BunKMS',
  '503 sealed':
    'BunKMS was started with another KEK than its store was made with, or does not trust its database; its /ready and its log name the reason',
};

/** The whole body in one new buffer. The received chunks are wiped, since they may contain a key. */
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
