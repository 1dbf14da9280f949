import { z } from 'zod';
import { projectIdSchema } from './documents.ts';
import { destroyReceiptSchema } from './keys.ts';

/**
 * `deleted.json`: what remains of a deleted project, with the progress of the deletion
 * (docs/formats/deletion-mark.md). It is unencrypted and holds no secret. Bundoc writes it; BunKMS reads it
 * before it rebuilds the key of a project (`bunkms recover`).
 */
export const deletionMarkSchema = z.strictObject({
  deleted: projectIdSchema,
  format: z.literal(1),
  since: z.iso.datetime(),
  /** When Bundoc learned that the key is destroyed; absent before. */
  keyDestroyedAt: z.iso.datetime().optional(),
  /** BunKMS's answer; also absent when another request destroyed the key, or the answer was lost. */
  receipt: destroyReceiptSchema.optional(),
  /** When nothing but this file was left. */
  finishedAt: z.iso.datetime().optional(),
});
export type DeletionMark = z.infer<typeof deletionMarkSchema>;
