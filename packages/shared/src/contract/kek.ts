import { z } from 'zod';
import { auditReceiptSchema } from './keys.ts';

/** The id of a KEK: 8 bytes of HKDF of it, hex. Reveals nothing of the KEK. */
export const kekIdSchema = z.string().regex(/^[0-9a-f]{16}$/, 'must be the id of a KEK: 16 hex digits');

/**
 * `staged`: in the ring, and nothing was ever wrapped with it. `current`: everything new is wrapped with it.
 * `previous`: was the current one. `retired`: nothing is wrapped with it, and nothing will be. `unknown`:
 * something names it, and nobody knows it.
 */
const kekStateSchema = z.enum(['staged', 'current', 'previous', 'retired', 'unknown']);

export const kekInfoSchema = z.object({
  /** Hex. Of an unknown KEK, the bytes found in the place of its id. */
  id: z.string().regex(/^(?:[0-9a-f]{2}){0,8}$/),
  state: kekStateSchema,
  /** Since when it is in that state. */
  since: z.iso.datetime().optional(),
  /** Whether the process that answers has it. */
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
  /** When everything that opens was rewrapped; absent while the rotation runs. */
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

/**
 * The body of `POST /v1/kek/rotate`: the KEK that becomes the current one; absent for the one that is staged.
 */
export const rotateKekSchema = z.strictObject({ kek_id: kekIdSchema.optional() });
export type RotateKek = z.infer<typeof rotateKekSchema>;

/** The body of `POST /v1/kek/retire`. What is accepted is lost when the KEK is destroyed. */
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
 * A page of `POST /v1/kek/verify`, by name: how many versions were unwrapped, how many of them with another
 * KEK than the current one, and the names of the keys of which one does not open or is not what the audit
 * chain says.
 */
export const kekVerificationSchema = z.object({
  checked: z.int().nonnegative(),
  under_others: z.int().nonnegative(),
  damaged: z.array(z.string()),
  next_cursor: z.string().optional(),
});
export type KekVerification = z.infer<typeof kekVerificationSchema>;
