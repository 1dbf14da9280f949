import { cursorSchema } from '@bundoc/shared/contract/cursor';
import { changePageSchema, collectionNameSchema } from '@bundoc/shared/contract/documents';
import { describe } from '@bundoc/shared/openapi/description';
import { z } from 'zod';
import { limitSchema } from '../engine/port/page-limits.ts';
import { projectPathSchema } from './access.ts';
import { PROJECT_REFUSALS, projectAccess } from './descriptions.ts';

/** Maximum long poll, seconds: shorter than the timeout of idle connections. */
export const WAIT_S_MAX = 50;

const sinceSchema = z.union([z.literal('now'), cursorSchema('changes')], {
  error: 'must be "now" or one that an earlier answer gave',
});
export const querySchema = z.strictObject({
  limit: limitSchema.optional(),
  since: sinceSchema.optional(),
  collection: collectionNameSchema.optional(),
  include: z.literal('doc', 'must be "doc"').optional(),
  wait: z
    .string()
    .regex(/^\d{1,2}$/, `must be a whole number from 0 to ${WAIT_S_MAX}`)
    .transform(Number)
    .pipe(z.number().max(WAIT_S_MAX))
    .meta({
      type: 'integer',
      minimum: 0,
      maximum: WAIT_S_MAX,
      description: 'Longest wait for a change, seconds',
    })
    .optional(),
});

export const FORMATS = ['application/json', 'application/x-ndjson', 'text/event-stream'] as const;

const EXAMPLE_PARAMS = { project: 'project-a' };
export const DESCRIPTION = describe({
  id: 'listChanges',
  tag: 'changes',
  summary: 'List the changes in a project',
  description:
    'Each document once, at its last change; deletions for seven days. The next request continues from `since` of the answer. `Accept` selects ' +
    'a page as JSON or as lines, or a stream of server-sent events. A stream does not end, and takes neither `limit` nor `wait`.',
  access: projectAccess('docs:read'),
  params: projectPathSchema,
  query: querySchema,
  headers: z.object({
    accept: z.enum(FORMATS).optional(),
    'last-event-id': z
      .string()
      .max(256)
      .optional()
      .describe('For a stream: the last `id` that the client received, to resume after it'),
  }),
  answers: {
    200: {
      description: 'A page, or a stream',
      schema: changePageSchema,
      also: { 'application/x-ndjson': z.string(), 'text/event-stream': z.string() },
    },
  },
  refusals: [...PROJECT_REFUSALS, 'position_gone'],
  examples: {
    fromTheStart: { params: EXAMPLE_PARAMS, query: { limit: '100' }, status: 200 },
    withDocuments: { params: EXAMPLE_PARAMS, query: { include: 'doc', collection: 'notes' }, status: 200 },
    fromNow: { params: EXAMPLE_PARAMS, query: { since: 'now' }, status: 200 },
    asLines: { params: EXAMPLE_PARAMS, headers: { accept: 'application/x-ndjson' }, status: 200 },
    noProject: { params: { project: 'none' }, status: 404 },
  },
});
