import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { WITHOUT_PLACE } from '@bundoc/shared/http/gate-door';
import { describe } from '@bundoc/shared/openapi/description';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Backups } from '../service/backups.ts';
import { guardProject, projectPath, projectPathSchema } from './access.ts';
import { PROJECT_REFUSALS, projectAccess } from './descriptions.ts';

const OCTETS = 'application/octet-stream';
const DESCRIPTION = describe({
  id: 'backUpProject',
  tag: 'projects',
  summary: 'A backup of a project',
  description:
    'The project at the moment of the last byte, while others write: its documents as they are stored, sealed, and what `bundoc restore` ' +
    'needs beside the key. An answer that breaks off is no backup; `bundoc verify-backup` detects that.',
  access: projectAccess('docs:admin'),
  params: projectPathSchema,
  answers: {
    200: {
      description: 'docs/formats/project-backup.md',
      schema: z.string(),
      contentType: OCTETS,
      headers: { 'Content-Disposition': 'A name for the file' },
    },
  },
  refusals: PROJECT_REFUSALS,
  examples: {
    backup: { params: { project: 'project-a' }, status: 200 },
    noProject: { params: { project: 'none' }, status: 404 },
  },
});

/** Backups of projects in use. */
export function registerBackup(app: FastifyInstance, backups: Backups, auth: BearerAuth): void {
  app.get(
    '/v1/projects/:project/backup',
    { onRequest: guardProject(auth, 'docs:admin'), config: { ...WITHOUT_PLACE, ...DESCRIPTION } },
    async (request, reply) => {
      const { project } = projectPath(request);
      const stream = await backups.begin(project);
      reply
        .header('content-type', OCTETS)
        .header('content-disposition', `attachment; filename="${project}.bundoc-backup"`);
      if (request.method !== 'HEAD') return reply.send(stream);
      // Nobody reads the stream any longer, so the backup stops.
      stream.destroy();
      return reply.send();
    },
  );
}
