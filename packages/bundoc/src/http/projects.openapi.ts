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
  summary: 'Delete a project and destroy its key, for ever',
  description:
    'Once it has begun, every other route of the project answers 410, and the id is not used again. Repeated, it continues with what was cut short, or answers the same once more.',
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
