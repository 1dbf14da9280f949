import { readFileSync } from 'node:fs';
import { stampOf } from '@bundoc/shared/files/file-stamp';
import { parseJson } from '@bundoc/shared/json/parse-json';
import { printable } from '@bundoc/shared/logs/printable';
import { request } from 'undici';
import { z } from 'zod';
import { HttpAgent, noAnswerOf, readOwn } from './http-agent.ts';
import { OutsideKeyError, requestIdOf } from './port.ts';

/** OpenBao, Vault and BunKMS name it so. */
const idSchema = z.object({ request_id: z.string() });
/** Characters of another service's message that ours quotes. */
const QUOTED_MAX = 200;

export interface HttpCallsOptions {
  /** Paths are below it. */
  readonly url: string;
  /** PEM of the authorities of its certificate; the system's when absent. Read again when it changes. */
  readonly caFile?: string | undefined;
  /** A credential. Read again when it changes. */
  readonly tokenFile: string;
}

export interface HttpAnswer {
  readonly status: number;
  /** The JSON of the body; undefined for any other body. */
  readonly body: unknown;
  /** By which the service's own log names the call, if its answer says so. */
  readonly requestId: string | undefined;
}

/**
 * Calls of a service that holds a key: JSON over HTTP. It follows no redirect, reads at most 16 KiB, and
 * verifies certificates whatever the environment says.
 */
export class HttpCalls implements AsyncDisposable {
  readonly #options: HttpCallsOptions;
  readonly #agent: HttpAgent;
  #token: { readonly stamp: string; readonly text: string } | undefined;

  constructor(options: HttpCallsOptions) {
    this.#options = options;
    this.#agent = new HttpAgent(options.caFile);
  }

  /**
   * @param headers the headers with the credential.
   * @throws OutsideKeyError `unavailable` without an answer, for one that repeats our credential or what was
   *   sent, and for an unreadable file of ours.
   */
  async call(
    method: 'GET' | 'POST',
    path: string,
    headers: (token: string) => Readonly<Record<string, string>>,
    sent: unknown,
    signal: AbortSignal,
  ): Promise<HttpAnswer> {
    const token = this.#readToken();
    const dispatcher = this.#agent.current();
    const url = this.#options.url.replace(/\/+$/, '') + path;
    try {
      const { statusCode: status, body } = await request(url, {
        dispatcher,
        method,
        signal,
        headers: { ...headers(token), ...(sent !== undefined && { 'content-type': 'application/json' }) },
        body: sent === undefined ? null : JSON.stringify(sent),
      });
      const text = await body.text();
      if (repeats(text, [token, ...valuesOf(sent)]))
        throw new OutsideKeyError(
          'unavailable',
          `the answer of ${new URL(url).origin} repeats what was sent`,
        );
      const answered = parseJson(text);
      return {
        status,
        body: answered,
        requestId: requestIdOf(idSchema.safeParse(answered).data?.request_id),
      };
    } catch (error) {
      if (error instanceof OutsideKeyError) throw error;
      throw noAnswerOf(new URL(url).origin, error);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent[Symbol.asyncDispose]();
  }

  #readToken(): string {
    const { tokenFile } = this.#options;
    const stamp = stampOf(tokenFile);
    if (this.#token?.stamp === stamp) return this.#token.text;
    const text = readOwn('token_file', tokenFile, () => readFileSync(tokenFile, 'utf8').trim());
    // RFC 6750, 2.1. Else it could be an invalid header, whose error quotes it.
    if (!/^[\w.~+/-]{1,8192}=*$/.test(text))
      throw new OutsideKeyError('unavailable', `token_file: ${tokenFile} holds no token`, {
        remedy: 'put the token into it, and nothing else',
      });
    this.#token = { stamp, text };
    return text;
  }
}

/** The texts of a body that was sent. */
function valuesOf(sent: unknown): readonly unknown[] {
  return typeof sent === 'object' && sent !== null ? Object.values(sent) : [];
}

/**
 * Whether a text has one of these secrets. A debugging proxy sends back what it got: that is neither wrapped
 * nor fit for a message of ours.
 */
function repeats(text: string, secrets: readonly unknown[]): boolean {
  // JSON may write a slash, the only such character of ours, in two ways.
  const plain = text.replaceAll('\\/', '/');
  return secrets.some((secret) => typeof secret === 'string' && secret !== '' && plain.includes(secret));
}

/** A short message of another service, for an error of ours. */
export function quoted(text: unknown): string {
  return typeof text === 'string'
    ? printable(text.slice(0, QUOTED_MAX).replace(/\s+/g, ' ').trim())
    : 'it says no reason';
}
