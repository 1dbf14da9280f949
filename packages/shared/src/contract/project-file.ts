import { z } from 'zod';
import { projectIdSchema } from './documents.ts';
import { storageIdSchema } from './storages.ts';

/**
 * The folder of all projects, below Bundoc's data folder. It has one folder per project, named after its id.
 */
export const PROJECTS_FOLDER = 'projects';
export const PROJECT_FILE = 'project.json';

/** The only file in the folder of a deleted project. */
export const DELETION_FILE = 'deleted.json';

/** Marks the folder of a project that is being moved here or was moved away. Such a project is not here. */
export const MOVE_FILE = 'move.mark';

const versionSchema = z.int().positive();

/**
 * `project.json`, format 1 (docs/formats/project-file.md). It is unencrypted and holds no secret. Bundoc
 * writes it; BunKMS reads the wrapped keys when its own store is lost (`bunkms recover`).
 */
export const projectFileSchema = z.strictObject({
  format: z.literal(1),
  project: projectIdSchema,
  createdAt: z.iso.datetime(),
  key: z.strictObject({ name: z.string(), id: z.uuid() }),
  versions: z
    .array(
      z.strictObject({
        version: versionSchema,
        kcv: z.string(),
        wrapped: z.base64(),
        /** Whether the key existed before the project: others may have sealed under it. */
        adopted: z.literal(true).optional(),
        /** The last take-over of the storage when the version was first used there; absent for none. */
        takenOver: z.strictObject({ storage: storageIdSchema, ms: z.int().positive() }).optional(),
      }),
    )
    .min(1)
    .max(1_000),
  nameKey: z
    .array(z.strictObject({ version: versionSchema, sealed: z.base64() }))
    .min(1)
    .max(1_000),
});
export type ProjectFile = z.infer<typeof projectFileSchema>;
