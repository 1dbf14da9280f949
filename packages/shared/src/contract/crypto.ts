import { z } from 'zod';
import { base64Schema } from './base64.ts';
import { fieldFaultSchema, PROBLEM_CODES } from './problem.ts';

/** Longest plaintext of one item, bytes. Larger ones belong under a key that the caller holds. */
export const PLAINTEXT_BYTES_MAX = 65_536;
/** Longest additional data of one item, bytes. */
export const CRYPTO_AAD_BYTES_MAX = 4_096;
/** What encryption adds to a plaintext, bytes (`docs/formats/ciphertext.md`). */
export const CIPHERTEXT_OVERHEAD_BYTES = 61;
/** Most items of one request. */
export const CRYPTO_ITEMS_MAX = 100;
/** Shortest and longest data key, bytes: from AES-128 to the two keys of AES-256-XTS, or HMAC-SHA512. */
const DATA_KEY_BYTES_MIN = 16;
const DATA_KEY_BYTES_MAX = 64;
/** Longest body of a request of these, bytes. */
export const CRYPTO_BODY_BYTES_MAX = 1_048_576;

/** Authenticated with the plaintext but not part of the ciphertext. Decryption needs the same bytes. */
const aad = base64Schema(CRYPTO_AAD_BYTES_MAX).optional();
const ciphertext = base64Schema(PLAINTEXT_BYTES_MAX + CIPHERTEXT_OVERHEAD_BYTES);
const version = z.int().positive();

function batchOf<S extends z.ZodType>(item: S) {
  return z.strictObject({ items: z.array(item).min(1).max(CRYPTO_ITEMS_MAX) });
}

/** One item of `POST /v1/encrypt/{name}`. */
export const encryptItemSchema = z.strictObject({
  plaintext_b64: base64Schema(PLAINTEXT_BYTES_MAX),
  aad_b64: aad,
});
/** One item of `POST /v1/decrypt/{name}` and `POST /v1/rewrap/{name}`. */
export const ciphertextItemSchema = z.strictObject({ ciphertext_b64: ciphertext, aad_b64: aad });

/** The body of `POST /v1/encrypt/{name}`: one item, or many. */
export const encryptSchema = z.union([encryptItemSchema, batchOf(encryptItemSchema)]);
/** The body of `POST /v1/decrypt/{name}` and `POST /v1/rewrap/{name}`: one item, or many. */
export const ciphertextsSchema = z.union([ciphertextItemSchema, batchOf(ciphertextItemSchema)]);
/** The envelope of a batch. Its items are validated one by one, so that a faulty one fails alone. */
export const cryptoBatchSchema = batchOf(z.unknown());

/** The result of encrypt; `version` is the current one, under which it encrypted. */
export const encryptedSchema = z.object({ ciphertext_b64: z.string(), version });
export type Encrypted = z.infer<typeof encryptedSchema>;
/** The result of decrypt; `version` is the one that the ciphertext is under. */
export const decryptedSchema = z.object({ plaintext_b64: z.string(), version });
export type Decrypted = z.infer<typeof decryptedSchema>;
/**
 * The result of rewrap: a ciphertext under `version`, the current one. The old one was under `from_version`.
 */
export const rewrappedSchema = z.object({ ciphertext_b64: z.string(), version, from_version: version });
export type Rewrapped = z.infer<typeof rewrappedSchema>;

/** The body of `POST /v1/data-key/{name}`. */
export const dataKeySchema = z.strictObject({
  bytes: z.int().min(DATA_KEY_BYTES_MIN).max(DATA_KEY_BYTES_MAX).default(32),
  aad_b64: aad,
});
/** A new key and its encryption, as {@link encryptedSchema} of it; {@link decryptedSchema} gives it back. */
export const dataKeyAnswerSchema = z.object({
  plaintext_b64: z.string(),
  ciphertext_b64: z.string(),
  version,
});
export type DataKeyAnswer = z.infer<typeof dataKeyAnswerSchema>;

/** Why an item of a batch failed, as members of a problem document. */
export const itemFailureSchema = z.object({
  error: z.object({
    code: z.enum(PROBLEM_CODES),
    title: z.string(),
    detail: z.string().optional(),
    errors: z.array(fieldFaultSchema).optional(),
  }),
});
export type ItemFailure = z.infer<typeof itemFailureSchema>;

/** The answer to a batch, 200 even when items failed: the result of each item, in order. */
function resultsOf<S extends z.ZodType>(item: S) {
  return z.object({ results: z.array(z.union([item, itemFailureSchema])) });
}
export const encryptAnswerSchema = z.union([encryptedSchema, resultsOf(encryptedSchema)]);
export const decryptAnswerSchema = z.union([decryptedSchema, resultsOf(decryptedSchema)]);
export const rewrapAnswerSchema = z.union([rewrappedSchema, resultsOf(rewrappedSchema)]);
