import { z } from 'zod';
import { projectIdSchema } from './documents.ts';
import { destroyReceiptSchema } from './keys.ts';

/**
 * What stays of a project that was deleted, and says how far that has come (docs/formats/deletion-mark.md):
 * `deleted.json`. It is in the clear and holds nothing that is secret. Bundoc writes it; BunKMS looks at it
 * before it rebuilds the key of a project (`bunkms recover`).
 */
export const deletionMarkSchema = z.strictObject({
  deleted: projectIdSchema,
  format: z.literal(1),
  since: z.iso.datetime(),
  /** When it was known that the key is destroyed; absent before. */
  keyDestroyedAt: z.iso.datetime().optional(),
  /** What BunKMS answered; absent, too, when somebody else had destroyed the key, or the answer was lost. */
  receipt: destroyReceiptSchema.optional(),
  /** When nothing but this was left. */
  finishedAt: z.iso.datetime().optional(),
});
export type DeletionMark = z.infer<typeof deletionMarkSchema>;
