import { z } from 'zod';
import { projectIdSchema } from './documents.ts';
import { storageIdSchema } from './storages.ts';

/**
 * The folder of all projects, below Bundoc's data folder. It has one folder per project, named by its id.
 */
export const PROJECTS_FOLDER = 'projects';
export const PROJECT_FILE = 'project.json';

/** In the folder of a project that was deleted: nothing else is left of it. */
export const DELETION_FILE = 'deleted.json';

/**
 * In the folder of a project that is being brought in, or was moved away: with it the project is not here.
 */
export const MOVE_FILE = 'move.mark';

const versionSchema = z.int().positive();

/**
 * `project.json`, format 1 (docs/formats/project-file.md). It is in the clear and holds nothing that is
 * secret. Bundoc writes it; BunKMS reads the wrapped keys when its own store is lost (`bunkms recover`).
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
        /** Whether the key was there already when the project was made: others may have sealed under it. */
        adopted: z.literal(true).optional(),
        /**
         * How often the storage had been taken over when the version was first used there; absent for never.
         */
        takeOvers: z.strictObject({ storage: storageIdSchema, count: z.int().positive() }).optional(),
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
