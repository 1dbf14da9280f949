import { AppError } from '@bundoc/shared/contract/app-error';
import {
  CRYPTO_BODY_BYTES_MAX,
  ciphertextItemSchema,
  ciphertextsSchema,
  cryptoBatchSchema,
  type Decrypted,
  decryptAnswerSchema,
  type Encrypted,
  encryptAnswerSchema,
  encryptItemSchema,
  encryptSchema,
  type ItemFailure,
  type Rewrapped,
  rewrapAnswerSchema,
} from '@bundoc/shared/contract/crypto';
import { defined } from '@bundoc/shared/contract/defined';
import { PROBLEMS } from '@bundoc/shared/contract/problem';
import type { Scope } from '@bundoc/shared/contract/tokens';
import { READ } from '@bundoc/shared/http/answer-bytes';
import { type RequestPart, validate } from '@bundoc/shared/http/validate';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import { describe, jsonBody, type RouteDescription } from '@bundoc/shared/openapi/description';
import type { FastifyInstance } from 'fastify';
import type { z } from 'zod';
import {
  type CiphertextItem,
  type CryptoDeps,
  type CryptoOperation,
  type DecryptedItem,
  decryptItems,
  type EncryptedItem,
  encryptItems,
  type ItemResult,
  type PlaintextItem,
  type RewrappedItem,
  rewrapItems,
} from '../encryption/encrypt-items.ts';
import type { Caller } from '../records/caller.ts';
import { callerOf, type Guards, subjectOf } from './guard.ts';
import { OUTSIDE_REFUSALS } from './key-outside.openapi.ts';
import { KEY_REFUSALS, keyAccess, keyParamsSchema } from './key-requests.ts';
import { noQuery } from './query.ts';
import type { ServiceGate } from './services.ts';

interface Operation<Input, Item, Result, Answer> {
  readonly scope: Scope;
  readonly item: z.ZodType<Input>;
  readonly decode: (input: Input) => Item;
  readonly run: (
    deps: CryptoDeps,
    name: string,
    items: readonly ItemResult<Item>[],
    caller: Caller,
  ) => Promise<ItemResult<Result>[]>;
  readonly encode: (result: Result) => Answer;
  readonly description: Pick<RouteDescription, 'summary' | 'description' | 'body' | 'answers' | 'examples'>;
}

const EXAMPLE_PARAMS = { name: 'project-a-dek' };
/** Well-formed, but from a key that does not exist. */
const EXAMPLE_CIPHERTEXT = Buffer.alloc(77, 1).toString('base64');
const NOT_OURS = { params: EXAMPLE_PARAMS, body: { ciphertext_b64: EXAMPLE_CIPHERTEXT }, status: 400 };
const EXAMPLE_BATCH = {
  params: EXAMPLE_PARAMS,
  body: { items: [{ ciphertext_b64: EXAMPLE_CIPHERTEXT }] },
  status: 200,
};

const ENCRYPT: Operation<z.infer<typeof encryptItemSchema>, PlaintextItem, EncryptedItem, Encrypted> = {
  scope: 'kms:encrypt',
  item: encryptItemSchema,
  decode: ({ plaintext_b64, aad_b64 }): PlaintextItem => ({
    plaintext: bytesOf(plaintext_b64),
    aad: bytesOf(aad_b64),
  }),
  run: encryptItems,
  description: {
    summary: 'Encrypt under the current version of a key',
    description:
      'One item, or a batch of at most 100. A failing item does not affect the others of its batch.',
    body: jsonBody(encryptSchema),
    answers: { 200: { description: 'The ciphertexts', schema: encryptAnswerSchema } },
    examples: {
      one: {
        params: EXAMPLE_PARAMS,
        body: { plaintext_b64: 'SGVsbG8=', aad_b64: 'b3JkZXIgNDI=' },
        status: 200,
        answer: { ciphertext_b64: EXAMPLE_CIPHERTEXT, version: 1 },
      },
      batch: {
        params: EXAMPLE_PARAMS,
        body: { items: [{ plaintext_b64: 'SGVsbG8=' }, { plaintext_b64: 'V29ybGQ=' }] },
        status: 200,
      },
    },
  },
  encode: ({ ciphertext, version }): Encrypted => ({
    ciphertext_b64: ciphertext.toString('base64'),
    version,
  }),
};

const DECRYPT: Operation<z.infer<typeof ciphertextItemSchema>, CiphertextItem, DecryptedItem, Decrypted> = {
  scope: 'kms:decrypt',
  item: ciphertextItemSchema,
  decode: ciphertextItemOf,
  run: decryptItems,
  description: {
    summary: 'Decrypt ciphertexts of a key',
    description: 'Requires the AAD of the encryption. All failures to decrypt look the same.',
    body: jsonBody(ciphertextsSchema),
    answers: { 200: { description: 'The plaintexts', schema: decryptAnswerSchema } },
    examples: { ofAnotherKey: NOT_OURS, batch: EXAMPLE_BATCH },
  },
  encode: ({ plaintext, version }): Decrypted => {
    const answer = { plaintext_b64: plaintext.toString('base64'), version };
    plaintext.fill(0);
    return answer;
  },
};

// Anyone who may encrypt may rewrap, because it reveals no plaintext. It does reveal whether a ciphertext
// opens with an AAD (SECURITY.md).
const REWRAP: Operation<z.infer<typeof ciphertextItemSchema>, CiphertextItem, RewrappedItem, Rewrapped> = {
  scope: 'kms:encrypt',
  item: ciphertextItemSchema,
  decode: ciphertextItemOf,
  run: rewrapItems,
  description: {
    summary: 'Re-encrypt ciphertexts under the current version of a key',
    description: 'No plaintext leaves.',
    body: jsonBody(ciphertextsSchema),
    answers: { 200: { description: 'The ciphertexts', schema: rewrapAnswerSchema } },
    examples: { ofAnotherKey: NOT_OURS, batch: EXAMPLE_BATCH },
  },
  encode: ({ ciphertext, version, fromVersion }): Rewrapped => ({
    ciphertext_b64: ciphertext.toString('base64'),
    version,
    from_version: fromVersion,
  }),
};

/** Encryption under keys that stay here. On both listeners, because it releases no key. */
export function registerCryptoRoutes(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  registerOperation(app, guards, services, 'encrypt', ENCRYPT);
  registerOperation(app, guards, services, 'decrypt', DECRYPT);
  registerOperation(app, guards, services, 'rewrap', REWRAP);
}

function registerOperation<Input, Item, Result, Answer>(
  app: FastifyInstance,
  guards: Guards,
  services: ServiceGate,
  name: CryptoOperation,
  operation: Operation<Input, Item, Result, Answer>,
): void {
  app.post<{ Body: Buffer | undefined }>(
    `/v1/${name}/:name`,
    {
      onRequest: guards.keyInPath(operation.scope),
      bodyLimit: CRYPTO_BODY_BYTES_MAX,
      config: {
        ...READ,
        ...describe({
          id: name,
          tag: 'encryption',
          ...operation.description,
          access: keyAccess(operation.scope),
          params: keyParamsSchema,
          refusals: [
            ...KEY_REFUSALS,
            ...OUTSIDE_REFUSALS,
            ...(['key_disabled', 'key_pending_deletion', 'rate_limited', 'audit_unavailable'] as const),
            ...(name === 'encrypt' ? [] : (['decryption_failed', 'key_version_destroyed'] as const)),
          ],
        }),
      },
    },
    async (request) => {
      validate(noQuery, request.query, 'query');
      const { name: key } = validate(keyParamsSchema, request.params, 'params');
      const body = parseJsonObject(request.body).value;
      const isBatch = Object.hasOwn(body, 'items');
      const items = isBatch ? itemsOf(operation, body) : [itemOf(operation, body, 'body')];
      const { crypto, limits } = services();
      limits.takeCrypto(subjectOf(request), key, items.length);
      const results = await operation.run(crypto, key, items, callerOf(request));
      if (isBatch)
        return {
          results: results.map((one) => (one instanceof AppError ? failureOf(one) : operation.encode(one))),
        };
      const [result] = results;
      if (result === undefined || result instanceof AppError) throw result;
      return operation.encode(result);
    },
  );
}

type Decoding<Input, Item> = Pick<Operation<Input, Item, unknown, unknown>, 'item' | 'decode'>;

function itemsOf<Input, Item>(
  operation: Decoding<Input, Item>,
  body: Readonly<Record<string, unknown>>,
): ItemResult<Item>[] {
  return validate(cryptoBatchSchema, body, 'body').items.map((item, at) => {
    try {
      return itemOf(operation, item, `body.items.${at}`);
    } catch (error) {
      if (error instanceof AppError) return error;
      throw error;
    }
  });
}

function itemOf<Input, Item>(
  { item, decode }: Decoding<Input, Item>,
  input: unknown,
  place: RequestPart,
): Item {
  return decode(validate(item, input, place));
}

function ciphertextItemOf(input: z.infer<typeof ciphertextItemSchema>): CiphertextItem {
  return { ciphertext: bytesOf(input.ciphertext_b64), aad: bytesOf(input.aad_b64) };
}

function bytesOf(text = ''): Buffer {
  return Buffer.from(text, 'base64');
}

function failureOf({ code, detail, errors }: AppError): ItemFailure {
  return {
    error: {
      code,
      title: PROBLEMS[code].title,
      ...defined({ detail }),
      ...(errors === undefined ? {} : { errors: [...errors] }),
    },
  };
}
