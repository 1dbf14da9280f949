import { z } from 'zod';
import { auditReceiptSchema } from './keys.ts';

/** The id of a KEK: 8 bytes of HKDF of the KEK, in hex. It reveals nothing about the KEK. */
export const kekIdSchema = z.string().regex(/^[0-9a-f]{16}$/, 'must be the id of a KEK: 16 hex digits');

/**
 * `staged`: in the ring, but never used to wrap. `current`: wraps everything new. `previous`: was the current
 * one. `retired`: nothing is or will be wrapped with it. `unknown`: a wrapped key names it, but the audit
 * chain does not.
 */
const kekStateSchema = z.enum(['staged', 'current', 'previous', 'retired', 'unknown']);

export const kekInfoSchema = z.object({
  /** Hex. For an unknown KEK, the bytes that a record has as its id. */
  id: z.string().regex(/^(?:[0-9a-f]{2}){0,8}$/),
  state: kekStateSchema,
  /** When it entered that state. */
  since: z.iso.datetime().optional(),
  /** Whether the answering process has it. */
  in_ring: z.boolean(),
  /** Versions of keys, and secrets of the service, that are wrapped with it. */
  versions: z.int().nonnegative(),
  secrets: z.int().nonnegative(),
});
export type KekInfo = z.infer<typeof kekInfoSchema>;

/** The latest rotation: `done` of `total` versions of keys are wrapped with the current KEK. */
const kekRotationSchema = z.object({
  from: kekIdSchema,
  started_at: z.iso.datetime(),
  /** When everything that can be opened was rewrapped; absent while the rotation runs. */
  completed_at: z.iso.datetime().optional(),
  total: z.int().nonnegative(),
  done: z.int().nonnegative(),
});

/** The answer of `GET /v1/kek` and `POST /v1/kek/rotate`. Holds no key material. */
export const kekStatusSchema = z.object({
  current: kekIdSchema,
  keks: z.array(kekInfoSchema),
  rotation: kekRotationSchema.optional(),
});
export type KekStatus = z.infer<typeof kekStatusSchema>;

/** The body of `POST /v1/kek/rotate`: the KEK that becomes current; by default the staged one. */
export const rotateKekSchema = z.strictObject({ kek_id: kekIdSchema.optional() });
export type RotateKek = z.infer<typeof rotateKekSchema>;

/** The body of `POST /v1/kek/retire`. Whatever is accepted here is lost when the KEK is destroyed. */
export const retireKekSchema = z.strictObject({
  kek_id: kekIdSchema,
  /** Also while keys are listed by `GET /v1/kek/{kek_id}/unfetched`. */
  accept_unfetched: z.boolean().default(false),
  /** Also while versions that do not open are wrapped with it. */
  accept_damaged: z.boolean().default(false),
});
export type RetireKek = z.infer<typeof retireKekSchema>;

export const retiredKekSchema = z.object({
  id: kekIdSchema,
  state: z.literal('retired'),
  audit: auditReceiptSchema,
});
export type RetiredKek = z.infer<typeof retiredKekSchema>;

/**
 * A page of `GET /v1/kek/{kek_id}/unfetched`, by name. It may hold fewer than `limit` and still have a
 * `next_cursor`.
 */
export const unfetchedPageSchema = z.object({
  keys: z.array(z.string()),
  next_cursor: z.string().optional(),
});
export type UnfetchedPage = z.infer<typeof unfetchedPageSchema>;

/**
 * A page of `POST /v1/kek/verify`, by name. It counts the versions that were unwrapped, and those that need
 * another KEK than the current one. It names the keys with a version that does not open, or that contradicts
 * the audit chain.
 */
export const kekVerificationSchema = z.object({
  checked: z.int().nonnegative(),
  under_others: z.int().nonnegative(),
  damaged: z.array(z.string()),
  next_cursor: z.string().optional(),
});
export type KekVerification = z.infer<typeof kekVerificationSchema>;
