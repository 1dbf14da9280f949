import { z } from 'zod';
import { documentIdSchema } from './documents.ts';
import { named, showAs } from './json-schema.ts';
import { conditionSchema } from './query.ts';

/** Documents of one answer, which is one commit. */
const WRITES_MAX = 500;

/** Its parser checks the condition. */
const whereSchema = showAs(
  z.record(z.string(), z.unknown(), {
    error: ({ input }) =>
      input === undefined
        ? 'is required; {} means every document'
        : 'must be a condition, such as {"done":true}',
  }),
  conditionSchema,
);

const members = {
  where: whereSchema,
  /** Documents of this answer. */
  limit: z.int().min(1).max(WRITES_MAX).default(WRITES_MAX),
  /** `next_cursor` of the previous answer to the same request. */
  cursor: z.string().min(1).max(8_192).optional(),
  /** Whether nothing is written. */
  dry_run: z.boolean().default(false),
};

/** The body of `POST …/delete`. */
export const deleteWhereSchema = z.strictObject(members);
/** The body of `POST …/update`. The update is read from its original text. */
export const updateWhereSchema = z.strictObject({
  ...members,
  update: showAs(
    z.unknown().refine((update) => update !== undefined, 'is required, such as {"$inc":{"stars":1}}'),
    named('Update'),
  ),
});

const answerMembers = {
  /** Documents that the condition held for when they were found. */
  matched: z.int(),
  /** Present unless this was the last answer. */
  next_cursor: z.string().optional(),
  /** Ids of documents that do not open, and are left alone. Whether the condition holds is unknown. */
  unreadable: z.array(documentIdSchema).optional(),
  /** The first documents that a dry run would write. */
  ids: z.array(documentIdSchema).optional(),
};
export const updatedWhereSchema = z.object({ changed: z.int(), ...answerMembers });
export const deletedWhereSchema = z.object({ deleted: z.int(), ...answerMembers });
