import { base64Schema } from '@bundoc/shared/contract/base64';
import { z } from 'zod';
import { HttpCalls, quoted } from './http-calls.ts';
import {
  BLOB_BYTES_MAX,
  type CallFacts,
  OutsideKeyError,
  type OutsideProvider,
  SECRET_BYTES,
} from './port.ts';

export interface BunkmsKeyOptions {
  /** Of the API listener of another BunKMS. */
  readonly url: string;
  /** The name of a key there. */
  readonly key: string;
  /** A token with `kms:encrypt` and `kms:decrypt` for that key. */
  readonly tokenFile: string;
  readonly caFile?: string | undefined;
}

const encryptedSchema = z.object({ ciphertext_b64: base64Schema(BLOB_BYTES_MAX) });
const decryptedSchema = z.object({ plaintext_b64: base64Schema(SECRET_BYTES.max) });
const refusalSchema = z.object({ code: z.string().regex(/^[a-z_]{1,64}$/) });

/** Refusals of a key whose holder does not let it be used any more, or has destroyed it. */
const DENIED: ReadonlySet<string> = new Set([
  ...['forbidden', 'key_not_found', 'key_disabled', 'key_pending_deletion', 'key_destroyed'],
  'key_version_destroyed',
]);

const TOKEN = 'put a token that works into token_file';
const REMEDIES: ReadonlyMap<string, string> = new Map([
  ['unauthenticated', TOKEN],
  ['forbidden', 'issue a token with kms:encrypt and kms:decrypt for this key'],
  ['key_not_found', 'make the key there, or correct key in the entry'],
  ['key_disabled', 'enable the key there by "bunkms key enable"'],
  ['not_found', 'correct url in the entry: it is that of the API listener, without /v1'],
  ['sealed', 'unseal that BunKMS: its /ready says why'],
]);

/** A key of another BunKMS, by `/v1/encrypt` and `/v1/decrypt`. */
export class BunkmsKey implements OutsideProvider {
  readonly realName: string;
  readonly #key: string;
  readonly #calls: HttpCalls;

  constructor({ key, ...options }: BunkmsKeyOptions) {
    this.realName = key;
    this.#key = encodeURIComponent(key);
    this.#calls = new HttpCalls(options);
  }

  async wrap(secret: Uint8Array, signal: AbortSignal): Promise<Buffer> {
    const sent = { plaintext_b64: Buffer.from(secret).toString('base64') };
    const { ciphertext_b64: text } = await this.#ask('encrypt', sent, encryptedSchema, { signal });
    return Buffer.from(text, 'base64');
  }

  async unwrap(blob: Uint8Array, signal: AbortSignal, facts?: CallFacts): Promise<Buffer> {
    const sent = { ciphertext_b64: Buffer.from(blob).toString('base64') };
    const { plaintext_b64: text } = await this.#ask('decrypt', sent, decryptedSchema, { signal, facts });
    return Buffer.from(text, 'base64');
  }

  /** BunKMS shows the key, or refuses a token that works. A proxy before it may answer anything else. */
  async checkCredential(signal: AbortSignal): Promise<void> {
    const { status, body } = await this.#calls.call(
      'GET',
      `/v1/keys/${this.#key}`,
      bearer,
      undefined,
      signal,
    );
    if (status !== 200 && !DENIED.has(refusalSchema.safeParse(body).data?.code ?? ''))
      throw new OutsideKeyError('unavailable', `our token does not work there (${status})`, {
        remedy: TOKEN,
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
    const { status, body, requestId } = await this.#calls.call(
      'POST',
      `/v1/${operation}/${this.#key}`,
      bearer,
      sent,
      signal,
    );
    facts.requestId = requestId;
    const answer = status === 200 ? schema.safeParse(body) : undefined;
    if (answer?.success === true) return answer.data;
    const refusal = refusalSchema.safeParse(body).data;
    const code = refusal?.code ?? '';
    const isOther = refusal === undefined;
    const message = isOther
      ? `${status} is no answer of BunKMS`
      : `BunKMS answered ${status} ${quoted(code)}`;
    const remedy = isOther ? 'correct url in the entry' : REMEDIES.get(code);
    const fault = DENIED.has(code) ? 'denied' : code === 'decryption_failed' ? 'damaged' : 'unavailable';
    throw new OutsideKeyError(fault, message, { remedy });
  }
}

function bearer(token: string) {
  return { authorization: `Bearer ${token}` };
}
