import { z } from 'zod';
import { projectIdSchema } from './documents.ts';
import { destroyReceiptSchema } from './keys.ts';

/** What is known of a project without its key: nothing is opened for it, and nothing authenticates it. */
export const projectSummarySchema = z.object({
  /**
   * Documents and their sealed bytes: as they are for an open project and on PostgreSQL; else as of the
   * last checkpoint. Absent before the first one.
   */
  documents: z.int().optional(),
  bytes: z.int().optional(),
  /** The version of the key that is sealed under; absent with `documents`. */
  key_version: z.int().optional(),
  /** Whether the process that answers has the project open. */
  open: z.boolean(),
  /** Until when that process may use the key that it has; absent when opening the project fetches the key. */
  key_until: z.iso.datetime().optional(),
});
export type ProjectSummary = z.infer<typeof projectSummarySchema>;

/** A page of the projects that the token may see, in the order of their ids. */
export const listedProjectSchema = z.object({
  project: projectIdSchema,
  /** When it was asked for with `include=summary`. */
  summary: projectSummarySchema.optional(),
});
export const projectPageSchema = z.object({
  projects: z.array(listedProjectSchema),
  next_cursor: z.string().optional(),
});
export type ProjectPage = z.infer<typeof projectPageSchema>;

/** What a project holds. */
export const projectInfoSchema = z.object({
  project: projectIdSchema,
  created_at: z.iso.datetime(),
  documents: z.int(),
  /** Collections that hold a document. */
  collections: z.int(),
  /** Sealed bytes of its documents. */
  bytes: z.int(),
  key: z.object({
    /** The version that is sealed under. */
    version: z.int(),
    /** All that the project has been sealed under and that are not known to be destroyed. */
    versions: z.array(z.int()),
    /** Documents that are still sealed under a former one. */
    documents_to_reseal: z.int(),
  }),
  /** How it was in this process before it was asked about, which opens it. */
  cache: z.object({ open: z.boolean(), key_cached: z.boolean() }),
});
export type ProjectInfo = z.infer<typeof projectInfoSchema>;

/** The answer to the deletion of a project. */
export const deletedProjectSchema = z.object({
  project: projectIdSchema,
  deleted_at: z.iso.datetime(),
  /**
   * What BunKMS says of the destruction of its key; absent when that answer was lost, or somebody else had
   * destroyed the key.
   */
  key: destroyReceiptSchema.optional(),
});
export type DeletedProject = z.infer<typeof deletedProjectSchema>;
