import { AppError } from '@bundoc/shared/contract/app-error';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import { projectInfoSchema, projectPageSchema } from '@bundoc/shared/contract/projects';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { HOLDS_MANY, WITHOUT_PLACE } from '@bundoc/shared/http/gate-door';
import { claimsOf } from '@bundoc/shared/http/guard';
import { describe } from '@bundoc/shared/openapi/description';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { LIMIT_DEFAULT, limitSchema } from '../engine/port/page-limits.ts';
import type { ProjectDeletion } from '../projects/delete-project.ts';
import type { ProjectDirectory } from '../service/project-directory.ts';
import { guardProject, guardToken, projectPath, projectPathSchema } from './access.ts';
import { PROJECT_REFUSALS, projectAccess } from './descriptions.ts';
import { DELETION, deleteQuerySchema } from './projects.openapi.ts';

const projectsQuerySchema = z.strictObject({
  limit: limitSchema.default(LIMIT_DEFAULT),
  /** `next_cursor` of the previous page. */
  cursor: projectIdSchema.optional(),
  /** The prefix of the ids. */
  prefix: projectIdSchema.optional(),
  include: z.literal('summary', 'must be "summary"').optional(),
});

/** The projects and the totals of each. */
export function registerProjects(app: FastifyInstance, directory: ProjectDirectory, auth: BearerAuth): void {
  app.get(
    '/v1/projects',
    {
      onRequest: guardToken(auth, 'docs:read', projectsQuerySchema),
      config: {
        ...HOLDS_MANY,
        ...describe({
          id: 'listProjects',
          tag: 'projects',
          summary: 'List projects',
          description:
            'Those that the token is for, in the order of their ids. `include=summary` tells what each holds as far as that is known without its key: no project is opened, and no key is fetched.',
          access: { kind: 'token', scopes: ['docs:read'] },
          query: projectsQuerySchema,
          answers: { 200: { description: 'A page', schema: projectPageSchema } },
          refusals: ['storage_unavailable', 'storage_superseded', 'kms_unavailable'],
          examples: {
            firstPage: { query: { limit: '20' }, status: 200 },
            search: { query: { prefix: 'project-', include: 'summary' }, status: 200 },
            badCursor: { query: { cursor: '../x' }, status: 400 },
          },
        }),
      },
    },
    async (request) => {
      const { cursor, limit, prefix, include } = request.query as z.infer<typeof projectsQuerySchema>;
      return directory.list(claimsOf(request), {
        after: cursor ?? '',
        prefix: prefix ?? '',
        limit,
        summary: include !== undefined,
      });
    },
  );

  app.get(
    '/v1/projects/:project',
    {
      onRequest: guardProject(auth, 'docs:read'),
      config: describe({
        id: 'readProject',
        tag: 'projects',
        summary: 'What a project holds',
        description: 'Counts, bytes and the versions of its key. Asking opens the project.',
        access: projectAccess('docs:read'),
        params: projectPathSchema,
        answers: { 200: { description: 'The project', schema: projectInfoSchema } },
        refusals: PROJECT_REFUSALS,
        examples: {
          read: { params: { project: 'project-a' }, status: 200 },
          another: { params: { project: 'none' }, status: 404 },
        },
      }),
    },
    async (request) => directory.describe(projectPath(request).project),
  );
}

/** Deletes a project for good. */
export function registerProjectDeletion(
  app: FastifyInstance,
  deletion: ProjectDeletion,
  auth: BearerAuth,
): void {
  app.delete(
    '/v1/projects/:project',
    {
      onRequest: guardProject(auth, 'docs:admin', deleteQuerySchema),
      config: { ...WITHOUT_PLACE, ...DELETION },
    },
    async (request) => {
      const { project } = projectPath(request);
      const { confirm } = request.query as z.infer<typeof deleteQuerySchema>;
      // An irreversible action needs the name twice.
      if (confirm !== project)
        throw new AppError('invalid_request', {
          errors: [{ path: 'query.confirm', message: "must be the project's id" }],
        });
      return deletion.delete(project);
    },
  );
}
