import { base64Schema } from '@bundoc/shared/contract/base64';
import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';
import { z } from 'zod';
import { type HttpAnswer, HttpCalls, quoted } from './http-calls.ts';
import {
  BLOB_BYTES_MAX,
  type CallFacts,
  OutsideKeyError,
  type OutsideProvider,
  SECRET_BYTES,
} from './port.ts';

export interface TransitKeyOptions {
  /** Of OpenBao or Vault, without `/v1`. */
  readonly url: string;
  readonly namespace?: string | undefined;
  /** The path of the transit engine. */
  readonly mount: string;
  readonly key: string;
  readonly tokenFile: string;
  readonly caFile?: string | undefined;
}

const wrappedSchema = z.object({
  data: z.object({
    ciphertext: z
      .string()
      .max(BLOB_BYTES_MAX)
      .regex(/^[\w:+/=-]+$/),
  }),
});
const unwrappedSchema = z.object({ data: z.object({ plaintext: base64Schema(SECRET_BYTES.max) }) });
const errorsSchema = z.object({ errors: z.array(z.string()) });
const tokenSchema = z.object({ data: z.object({ ttl: z.number(), renewable: z.boolean().optional() }) });

/** A renewal that failed is tried again after this time, milliseconds. */
const RENEW_AGAIN_MS = 60_000;

/**
 * A key of the transit secrets engine of OpenBao or HashiCorp Vault. The engine's ciphertext, as text, is
 * what is stored. The token is renewed at half of its time to live, behind a call that uses it.
 *
 * Source: the HTTP API of the transit engine and of token authentication, the same in both.
 */
export class TransitKey implements OutsideProvider {
  readonly realName: string;
  readonly #options: TransitKeyOptions;
  readonly #calls: HttpCalls;
  readonly #clock: Clock;
  #renewAtMs = 0;

  constructor(options: TransitKeyOptions, clock: Clock = systemClock) {
    const { namespace = '', mount, key } = options;
    this.realName = [namespace, mount, key].join('\0');
    this.#options = options;
    this.#clock = clock;
    this.#calls = new HttpCalls(options);
  }

  async wrap(secret: Uint8Array, signal: AbortSignal): Promise<Buffer> {
    const sent = { plaintext: Buffer.from(secret).toString('base64') };
    const { data } = await this.#ask('encrypt', sent, wrappedSchema, { signal });
    return Buffer.from(data.ciphertext, 'latin1');
  }

  async unwrap(blob: Uint8Array, signal: AbortSignal, facts?: CallFacts): Promise<Buffer> {
    const sent = { ciphertext: Buffer.from(blob).toString('latin1') };
    const { data } = await this.#ask('decrypt', sent, unwrappedSchema, { signal, facts });
    return Buffer.from(data.plaintext, 'base64');
  }

  async checkCredential(signal: AbortSignal): Promise<void> {
    const answer = await this.#call('GET', '/v1/auth/token/lookup-self', undefined, signal);
    if (answer.status !== 200)
      throw new OutsideKeyError('unavailable', `our token does not work there: ${reasonOf(answer)}`, {
        remedy: 'put a token that works into token_file',
      });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#calls[Symbol.asyncDispose]();
  }

  async #ask<S extends z.ZodType>(
    operation: 'encrypt' | 'decrypt',
    sent: unknown,
    schema: S,
    { signal, facts = {} }: { readonly signal: AbortSignal; readonly facts?: CallFacts | undefined },
  ): Promise<z.infer<S>> {
    const { mount, key } = this.#options;
    const path = `/v1/${mount}/${operation}/${encodeURIComponent(key)}`;
    const answer = await this.#call('POST', path, sent, signal);
    facts.requestId = answer.requestId;
    const read = answer.status === 200 ? schema.safeParse(answer.body) : undefined;
    if (read?.success !== true) {
      const remedy = remedyOf(answer, `${mount}/keys/${key}`, `${mount}/${operation}/${key}`);
      throw new OutsideKeyError(faultOf(answer), reasonOf(answer), { remedy });
    }
    this.#renewInTime();
    return read.data;
  }

  #call(method: 'GET' | 'POST', path: string, sent: unknown, signal: AbortSignal): Promise<HttpAnswer> {
    const { namespace } = this.#options;
    const headers = (token: string) => ({
      'x-vault-token': token,
      'x-vault-request': 'true',
      ...(namespace !== undefined && { 'x-vault-namespace': namespace }),
    });
    return this.#calls.call(method, path, headers, sent, signal);
  }

  /** Renews the token when half of its time has passed. Nobody waits for it. */
  #renewInTime(): void {
    if (this.#clock.monotonic() < this.#renewAtMs) return;
    this.#renewAtMs = this.#clock.monotonic() + RENEW_AGAIN_MS;
    this.#renew().catch(() => undefined);
  }

  async #renew(): Promise<void> {
    const signal = AbortSignal.timeout(RENEW_AGAIN_MS);
    const found = await this.#call('GET', '/v1/auth/token/lookup-self', undefined, signal);
    const { ttl = 0, renewable = false } = tokenSchema.safeParse(found.body).data?.data ?? {};
    if (!renewable || ttl === 0) return;
    const { status } = await this.#call('POST', '/v1/auth/token/renew-self', {}, signal);
    if (status === 200) this.#renewAtMs = this.#clock.monotonic() + (ttl * 1_000) / 2;
  }
}

/**
 * The engine says 403 for a use that its policy denies, and 400 for all else: a key that is gone or was made
 * too new for the blob, and bytes that do not open. A proxy may say 403 too, but not in these words.
 */
function faultOf({ status, body }: Pick<HttpAnswer, 'status' | 'body'>): OutsideKeyError['fault'] {
  const text = (errorsSchema.safeParse(body).data?.errors ?? []).join(' ');
  if (status === 403) return /permission denied/.test(text) ? 'denied' : 'unavailable';
  if (status !== 400) return 'unavailable';
  if (/encryption key not found|disallowed by policy/.test(text)) return 'denied';
  return /invalid ciphertext|message authentication failed|cipher:/.test(text) ? 'damaged' : 'unavailable';
}

/** What an operator can do about a refusal. */
function remedyOf({ status, body }: HttpAnswer, key: string, use: string): string | undefined {
  if (status === 403) return `let the policy of the token update ${use}`;
  if (status === 404) return 'correct url (without /v1), namespace and mount in the entry';
  if (status === 503) return 'unseal the service';
  const isOther = status < 400 || !errorsSchema.safeParse(body).success;
  if (isOther) return 'correct url in the entry: it must lead to OpenBao or Vault itself';
  return faultOf({ status, body }) === 'denied' ? `make ${key}, or correct key in the entry` : undefined;
}

function reasonOf({ status, body }: HttpAnswer): string {
  return `it answered ${status}: ${quoted(errorsSchema.safeParse(body).data?.errors[0])}`;
}
