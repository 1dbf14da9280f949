import { z } from 'zod';
import { projectIdSchema } from './documents.ts';
import { destroyReceiptSchema } from './keys.ts';

/** The figures of a project that need no key. The project is not opened, so nothing authenticates them. */
export const projectSummarySchema = z.object({
  /**
   * Documents and their sealed bytes. They are current for an open project and on PostgreSQL, and otherwise
   * as of the last checkpoint. Absent before the first one.
   */
  documents: z.int().optional(),
  bytes: z.int().optional(),
  /** The key version that new seals use; absent if `documents` is. */
  key_version: z.int().optional(),
  /**
   * Opaque: only equality has a meaning. It differs after every commit and every re-sealed document, so equal
   * values show that a backup would be the same. It may also differ without them.
   */
  last_change: z.string().optional(),
  /** Whether the answering process has the project open. */
  open: z.boolean(),
  /** Until when that process may use its cached key; absent when opening the project must fetch the key. */
  key_until: z.iso.datetime().optional(),
});
export type ProjectSummary = z.infer<typeof projectSummarySchema>;

/** A project in the list of those that the token may see. */
export const listedProjectSchema = z.object({
  project: projectIdSchema,
  /** With `include=summary`. */
  summary: projectSummarySchema.optional(),
});
export const projectPageSchema = z.object({
  projects: z.array(listedProjectSchema),
  next_cursor: z.string().optional(),
});
export type ProjectPage = z.infer<typeof projectPageSchema>;

/** The content of a project, in figures. */
export const projectInfoSchema = z.object({
  project: projectIdSchema,
  created_at: z.iso.datetime(),
  documents: z.int(),
  /** Collections that hold a document. */
  collections: z.int(),
  /** Sealed bytes of its documents. */
  bytes: z.int(),
  key: z.object({
    /** The version that new seals use. */
    version: z.int(),
    /** All versions that the project was sealed under, except those known to be destroyed. */
    versions: z.array(z.int()),
    /** Documents that are still sealed under an older version. */
    documents_to_reseal: z.int(),
  }),
  /** The state in this process before this request, which opens the project. */
  cache: z.object({ open: z.boolean(), key_cached: z.boolean() }),
});
export type ProjectInfo = z.infer<typeof projectInfoSchema>;

/** The answer to the deletion of a project. */
export const deletedProjectSchema = z.object({
  project: projectIdSchema,
  deleted_at: z.iso.datetime(),
  /**
   * BunKMS's receipt for the destruction of its key; absent when that answer was lost, or another request
   * destroyed the key.
   */
  key: destroyReceiptSchema.optional(),
});
export type DeletedProject = z.infer<typeof deletedProjectSchema>;
