import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { AwsV4Signer } from 'aws4fetch';
import { Agent, type Dispatcher, request } from 'undici';
import { type AwsCredentials, awsCredentialsOf, parseAwsCredentials } from '../aws/credentials.ts';
import { stampOf } from '../files/file-stamp.ts';
import { ConfigError, type Environment, unreadable } from '../process/config.ts';
import { backoffMs } from '../runtime/backoff.ts';
import type { Clock } from '../runtime/clock.ts';
import type { DatedAnswer } from '../runtime/clock-skew.ts';
import { readTlsMaterial } from '../tls/files.ts';
import { ObjectStorageError } from './port.ts';
import { codeOfError, noAnswerOf, refusalOf, type S3Headers } from './s3-refusal.ts';
import { parseXml, type XmlElement } from './xml.ts';

export interface S3CallsOptions {
  /** For messages. */
  readonly name: string;
  /** URL of the bucket, with no slash at its end. */
  readonly url: string;
  readonly region: string;
  /** PEM of the authorities of the target's certificate; the system's when undefined. */
  readonly caFile: string | undefined;
  /** Shared credentials format of AWS; the environment has them when undefined. */
  readonly credentialsFile: string | undefined;
  readonly environment: Environment;
  readonly clock: Clock;
  /** Source of jitter, 0 to 1. */
  readonly random?: (() => number) | undefined;
  readonly sleep?: ((ms: number, signal: AbortSignal) => Promise<unknown>) | undefined;
  readonly bounds?: Partial<S3Bounds> | undefined;
}

export interface S3Bounds {
  readonly attempts: number;
  /** From a sent request to the head of its answer, milliseconds. */
  readonly headersMs: number;
  /** For one attempt, milliseconds, beside the time for its bytes. */
  readonly attemptMs: number;
}

export interface S3Call {
  /** The operation and its key, for messages. */
  readonly verb: string;
  readonly method: 'GET' | 'PUT' | 'DELETE';
  /** Of the object; empty for the bucket. */
  readonly key: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  /** Statuses and codes that are no failure. */
  readonly accepted: readonly (number | string)[];
  /** Whether the body of an accepted answer is an object, and not XML. */
  readonly isObject?: boolean;
  /** Of the body of an accepted answer. */
  readonly bytesMax: number;
}

export interface S3Answer {
  readonly status: number;
  readonly headers: S3Headers;
  /** The object, if the status is 200 or 206. */
  readonly body: Buffer;
  /** Of an answer that is no object; undefined for an empty body. */
  readonly xml: XmlElement | undefined;
}

const BOUNDS: S3Bounds = { attempts: 5, headersMs: 10_000, attemptMs: 15_000 };
const BACKOFF = { firstMs: 200, maxMs: 5_000 };
/** What an attempt gets more time for: bytes in a millisecond, about 4 Mbit/s. */
const BYTES_PER_MS = 524;
const CONNECTIONS_MAX = 4;
const CONNECT_MS = 5_000;
/** Below the time that services keep an idle connection. */
const IDLE_MS = 4_000;
const ERROR_BYTES_MAX = 65_536;
/** Of the secret and of the file with it. */
const CREDENTIALS_BYTES_MAX = 65_536;

/**
 * Signed calls of S3 over HTTP/1.1, at most four at a time; further ones wait within the time of their
 * attempt. `unavailable` is retried with exponential backoff and full jitter, with a new signature and the
 * same bytes. No redirect is followed, no proxy of the environment is used, and certificates are verified
 * whatever the environment says. TLS is 1.2 at least: many appliances have no 1.3.
 *
 * `aws4fetch` signs: 12 KB without dependencies, MIT, with types and a clock of the caller's. It was last
 * released in 2024, for a format that has not changed since 2012. The SDK's own `@smithy/signature-v4` is
 * released each month, but brings 8.3 MB of `@smithy/core` into each image. `aws4` has no types, and takes
 * the time from a header. Tests verify each signature with a second implementation.
 *
 * A credential is an access key, with a session token or without: from a file that is read again when it has
 * changed, or from `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`. Roles work only if
 * something else writes that file: neither IAM roles for service accounts, nor container credentials, nor
 * roles of instances are asked.
 *
 * Source: "Authenticating Requests (AWS Signature Version 4)" of the Amazon S3 API Reference.
 */
export class S3Calls implements AsyncDisposable {
  readonly #options: S3CallsOptions;
  readonly #bounds: S3Bounds;
  readonly #closing = new AbortController();
  #agent: { readonly stamp: string; readonly agent: Agent } | undefined;
  #credentials: { readonly stamp: string; readonly values: AwsCredentials } | undefined;
  #lastAnswer: DatedAnswer | undefined;

  constructor(options: S3CallsOptions) {
    this.#options = options;
    this.#bounds = { ...BOUNDS, ...options.bounds };
  }

  /** @throws ObjectStorageError for an answer that the call does not accept. */
  async call(call: S3Call): Promise<S3Answer> {
    const { random, sleep = (ms, signal) => delay(ms, undefined, { signal }) } = this.#options;
    const sha256 = createHash('sha256')
      .update(call.body ?? '')
      .digest('hex');
    for (let failures = 1; ; failures++) {
      try {
        return await this.#attempt(call, sha256);
      } catch (error) {
        const isPassing = error instanceof ObjectStorageError && error.kind === 'unavailable';
        if (!isPassing || failures >= this.#bounds.attempts || this.#closing.signal.aborted) throw error;
        await sleep(backoffMs(BACKOFF, failures, random), this.#closing.signal).catch(() => undefined);
      }
    }
  }

  /** What the last answer says of the target's clock. */
  get lastAnswer(): DatedAnswer | undefined {
    return this.#lastAnswer;
  }

  /** Ends running calls as `unavailable`. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await this.#agent?.agent.destroy();
  }

  async #attempt(call: S3Call, sha256: string): Promise<S3Answer> {
    const { method, body, verb } = call;
    const where = `${this.#options.name}: ${verb}`;
    if (this.#closing.signal.aborted) throw new ObjectStorageError('unavailable', `${where}: it is closed`);
    const dispatcher = this.#currentAgent(where);
    const { url, headers: signed } = await this.#sign(call, sha256, where);
    const bytes = (body?.length ?? 0) + call.bytesMax;
    const signal = AbortSignal.timeout(Math.ceil(this.#bounds.attemptMs + bytes / BYTES_PER_MS));
    const { clock } = this.#options;
    const beforeMs = clock.now();
    try {
      const answer = await request(url, {
        dispatcher,
        method,
        headers: signed,
        body: body ?? null,
        signal,
        headersTimeout: this.#bounds.headersMs,
      });
      const { date } = answer.headers;
      this.#lastAnswer = { date: date?.toString(), beforeMs, afterMs: clock.now() };
      // The end of a body that is left unread is an error, which nobody awaits.
      answer.body.on('error', () => undefined);
      try {
        return await this.#take(call, where, answer);
      } finally {
        answer.body.destroy();
      }
    } catch (error) {
      throw error instanceof ObjectStorageError ? error : noAnswerOf(where, error);
    }
  }

  /** @throws ObjectStorageError for what is not accepted; undici's error for a body that is cut. */
  async #take(call: S3Call, where: string, answer: Dispatcher.ResponseData): Promise<S3Answer> {
    const { accepted, isObject = false, bytesMax } = call;
    const { statusCode: status, headers, body } = answer;
    const isAccepted = accepted.includes(status);
    if (isAccepted && isObject && status < 300)
      return { status, headers, body: await readObject(where, headers, body, bytesMax), xml: undefined };
    const text = await readBytes(body, isAccepted ? Math.max(bytesMax, ERROR_BYTES_MAX) : ERROR_BYTES_MAX);
    if (text === undefined && isAccepted)
      throw new ObjectStorageError('wrong', `${where}: the answer has more than ${bytesMax} bytes`);
    const xml = text === undefined ? undefined : parseXml(text);
    const isRefusal = status < 300 && xml?.name === 'Error';
    if (accepted.includes(codeOfError(xml) ?? '') || (isAccepted && !isRefusal))
      return { status, headers, body: EMPTY, xml };
    throw refusalOf(where, status, headers, xml, this.#options.clock);
  }

  async #sign(call: S3Call, sha256: string, where: string) {
    const query = Object.entries(call.query ?? {})
      .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
      .join('&');
    const { url, region, clock } = this.#options;
    const signer = new AwsV4Signer({
      ...this.#currentCredentials(where),
      method: call.method,
      url: `${url}/${call.key}${query === '' ? '' : `?${query}`}`,
      headers: { ...call.headers, 'x-amz-content-sha256': sha256 },
      service: 's3',
      region,
      datetime: new Date(clock.now()).toISOString().replace(/[:-]|\.\d{3}/g, ''),
    });
    const signed = await signer.sign();
    return { url: signed.url, headers: Object.fromEntries(signed.headers) };
  }

  #currentCredentials(where: string): AwsCredentials {
    const { credentialsFile: file, environment } = this.#options;
    const stamp = file === undefined ? '' : stampOf(file);
    if (file !== undefined && this.#credentials?.stamp === stamp) return this.#credentials.values;
    const values =
      file === undefined
        ? awsCredentialsOf((name) => environment[name.toUpperCase()])
        : parseAwsCredentials(readOwn(`${where}: credentials`, file), 'default');
    const remedy =
      file === undefined
        ? 'there is no credential: name a file with credentials=, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; roles are not supported'
        : `credentials: ${file} holds no keys: put aws_access_key_id and aws_secret_access_key below [default]`;
    if (values === undefined) throw new ObjectStorageError('denied', `${where}: ${remedy}`);
    this.#credentials = { stamp, values };
    return values;
  }

  #currentAgent(where: string): Agent {
    const { caFile } = this.#options;
    const stamp = caFile === undefined ? '' : stampOf(caFile);
    if (this.#agent?.stamp === stamp) return this.#agent.agent;
    const agent = new Agent({
      allowH2: false,
      connections: CONNECTIONS_MAX,
      connect: {
        timeout: CONNECT_MS,
        minVersion: 'TLSv1.2',
        ...readAuthorities(where, caFile),
        rejectUnauthorized: true,
      },
      keepAliveTimeout: IDLE_MS,
    });
    void this.#agent?.agent.close();
    this.#agent = { stamp, agent };
    return agent;
  }
}

const EMPTY = Buffer.alloc(0);

function readOwn(where: string, file: string): string {
  try {
    return readFileSync(file).subarray(0, CREDENTIALS_BYTES_MAX).toString('utf8');
  } catch (error) {
    throw new ObjectStorageError('denied', `${where}: ${unreadable(file, error)}`);
  }
}

function readAuthorities(where: string, path: string | undefined) {
  try {
    return path === undefined ? {} : readTlsMaterial({ ca: { variable: 'ca', path } });
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new ObjectStorageError('wrong', `${where}: ${error.faults.join('; ')}`);
  }
}

async function readObject(
  where: string,
  headers: S3Headers,
  body: AsyncIterable<Buffer>,
  bytesMax: number,
): Promise<Buffer> {
  const length = Number(headers['content-length'] ?? Number.NaN);
  if (!Number.isSafeInteger(length))
    throw new ObjectStorageError('wrong', `${where}: the answer has no Content-Length`);
  if (length > bytesMax)
    throw new ObjectStorageError(
      'too-large',
      `${where}: it has ${length} bytes, and at most ${bytesMax} are expected`,
    );
  const bytes = await readBytes(body, length);
  if (bytes?.length === length) return bytes;
  throw new ObjectStorageError('unavailable', `${where}: the answer is not as long as it says`);
}

/** @returns undefined for more than `bytesMax`; the rest is not read. */
async function readBytes(body: AsyncIterable<Buffer>, bytesMax: number): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > bytesMax) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
