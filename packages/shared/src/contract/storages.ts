import { z } from 'zod';
import { auditReceiptSchema, keyNameSchema } from './keys.ts';
import { TAKEN_OVER_MS_MAX } from './take-over-time.ts';

/**
 * Storages of Bundoc as BunKMS knows them (`docs/keys.md`). A storage is a data folder or a database. It has
 * a permanent id, and a generation that each start replaces. So BunKMS detects when a copy of the storage is
 * started. A key names the one storage that holds it.
 */

export const storageIdSchema = z.uuid('must be the id of a storage, a UUID');
export const generationSchema = z.uuid();

/**
 * The maximum number of generations in one `advance`: those that BunKMS may still have after interrupted
 * starts.
 */
export const CANDIDATES_MAX = 16;

/** A storage that acts as the holder of a key, or wants to become it. */
const actingStorage = { storage: storageIdSchema, generation: generationSchema };

/** The body of `POST /v1/keys/{name}/claim`. An administrator's request has no `generation`. */
export const claimKeySchema = z.strictObject({
  storage: storageIdSchema,
  generation: generationSchema.optional(),
});
export type ClaimKey = z.infer<typeof claimKeySchema>;

/** The body of `POST /v1/keys/{name}/take-over`. `force` does not wait for leases to end. */
export const takeOverKeySchema = z.strictObject({
  storage: storageIdSchema,
  force: z.boolean().default(false),
});
export type TakeOverKey = z.infer<typeof takeOverKeySchema>;

/** The body of `POST /v1/keys/{name}/offer`: to which storage, in which move. */
export const offerKeySchema = z.strictObject({ ...actingStorage, to: storageIdSchema, move: z.uuid() });
export type OfferKey = z.infer<typeof offerKeySchema>;

/** The body of `POST /v1/keys/{name}/withdraw` and `…/accept`. */
export const moveOfKeySchema = z.strictObject({ ...actingStorage, move: z.uuid() });
export type MoveOfKey = z.infer<typeof moveOfKeySchema>;

/** The body of `POST /v1/keys/{name}/content-removed`. */
export const holderOfKeySchema = z.strictObject(actingStorage);
export type HolderOfKey = z.infer<typeof holderOfKeySchema>;

/**
 * The body of `POST /v1/keys/{name}/deletion-intent`. `client` is who asks the storage for the deletion, as
 * the root of its token. The intent counts in its share.
 */
export const intendDeletionSchema = z.strictObject({
  ...actingStorage,
  client: z.string().max(64).default(''),
});
export type IntendDeletion = z.infer<typeof intendDeletionSchema>;

/** The body of `POST /v1/keys/{name}/shred`: the receipt is that of the intent. */
export const shredKeySchema = z.strictObject({ ...actingStorage, receipt: auditReceiptSchema });
export type ShredKey = z.infer<typeof shredKeySchema>;

/** The answer of `POST /v1/keys/{name}/deletion-intent`. */
export const deletionIntentSchema = z.object({
  name: keyNameSchema,
  /** The audit record of the key's latest change, which `shred` must name. */
  receipt: auditReceiptSchema,
  intended_at: z.iso.datetime(),
});
export type DeletionIntent = z.infer<typeof deletionIntentSchema>;

/**
 * A deletion that its storage has begun but not finished. `destroyed`: only its content remains to be
 * removed.
 */
export const unfinishedDeletionSchema = z.object({
  ...deletionIntentSchema.shape,
  state: z.enum(['pending_deletion', 'destroyed']),
});
export type UnfinishedDeletion = z.infer<typeof unfinishedDeletionSchema>;

/** The answer of `GET /v1/storages/{id}/deletions`, by name. */
export const deletionPageSchema = z.object({
  deletions: z.array(unfinishedDeletionSchema),
  next_cursor: z.string().optional(),
});
export type DeletionPage = z.infer<typeof deletionPageSchema>;

/**
 * The body of `POST /v1/storages/{id}/advance`: from one of the generations that the storage may have, to a
 * new one.
 */
export const advanceStorageSchema = z.strictObject({
  from: z.array(generationSchema).max(CANDIDATES_MAX),
  to: generationSchema,
});
export type AdvanceStorage = z.infer<typeof advanceStorageSchema>;

/** The body of `POST /v1/storages/{id}/take-over`. Without `generation`, the next start is accepted. */
export const takeOverStorageSchema = z.strictObject({
  generation: generationSchema.optional(),
  force: z.boolean().default(false),
});
export type TakeOverStorage = z.infer<typeof takeOverStorageSchema>;

/** What BunKMS knows of a storage. */
export const storageInfoSchema = z.object({
  id: storageIdSchema,
  /** Absent after a take-over that named none, until the next start. */
  generation: generationSchema.optional(),
  /**
   * When an administrator last let a copy of it take over, in milliseconds since 1970; 0 for never. A restore
   * of BunKMS counts as a take-over of every storage. Each one has a later time, whatever the clock says.
   */
  taken_over_ms: z.int().nonnegative().max(TAKEN_OVER_MS_MAX),
  advanced_at: z.iso.datetime(),
});
export type StorageInfo = z.infer<typeof storageInfoSchema>;
