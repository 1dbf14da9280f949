import { projectIdSchema } from '@bundoc/shared/contract/documents';
import { deletedProjectSchema } from '@bundoc/shared/contract/projects';
import { describe } from '@bundoc/shared/openapi/description';
import { z } from 'zod';
import { projectPathSchema } from './access.ts';
import { projectAccess } from './descriptions.ts';

export const deleteQuerySchema = z.strictObject({
  /** Repeats the project's id. */
  confirm: projectIdSchema.optional(),
});

export const DELETION = describe({
  id: 'deleteProject',
  tag: 'projects',
  summary: 'Delete a project permanently, and destroy its key',
  description:
    'From its beginning, every other route of the project answers 409, and afterwards 410. The id is never used again. A repeated request finishes an interrupted deletion, or gets the same answer.',
  access: projectAccess('docs:admin'),
  params: projectPathSchema,
  query: deleteQuerySchema,
  answers: { 200: { description: 'Deleted', schema: deletedProjectSchema } },
  refusals: [
    'project_not_found',
    'project_damaged',
    'project_moving',
    'project_elsewhere',
    'project_unclaimed',
    'project_destroyed',
    'storage_superseded',
    'key_missing',
    'key_damaged',
    'kms_unavailable',
    'storage_unavailable',
    'disk_full',
    'rate_limited',
  ],
  examples: {
    unconfirmed: { params: { project: 'project-a' }, query: { confirm: 'project-b' }, status: 400 },
    another: { params: { project: 'none' }, query: { confirm: 'none' }, status: 404 },
  },
});
