import { documentPageSchema } from '@bundoc/shared/contract/documents';
import { describe } from '@bundoc/shared/openapi/description';
import { z } from 'zod';
import { fieldsParameterSchema } from '../documents/fields.ts';
import { LIMIT_DEFAULT, limitSchema, positionParameterSchema } from '../engine/port/page-limits.ts';
import { collectionPathSchema } from './access.ts';
import { PROJECT_REFUSALS, projectAccess } from './descriptions.ts';

export const listQuerySchema = z.strictObject({
  limit: limitSchema.default(LIMIT_DEFAULT),
  cursor: z.string().min(1).max(1_024).optional(),
  fields: fieldsParameterSchema.optional(),
  include: z.literal('total', 'must be "total"').optional(),
  as_of: positionParameterSchema.optional(),
});

export const DESCRIPTION = describe({
  id: 'listDocuments',
  tag: 'documents',
  summary: 'List a collection',
  description:
    'In the order of creation. `next_cursor` is the `cursor` of the next page. It is there while more may follow, even after a short or empty page. ' +
    'It is valid for the same collection and `fields`. `include=total` counts the documents of the collection. ' +
    'A page shows one state of the collection. `as_of` is the position of the last commit in it. With `as_of` of a page, a later page shows the same state for a minute.',
  access: projectAccess('docs:read'),
  params: collectionPathSchema,
  query: listQuerySchema,
  answers: { 200: { description: 'A page', schema: documentPageSchema } },
  refusals: [...PROJECT_REFUSALS, 'invalid_cursor', 'snapshot_too_old'],
  examples: {
    firstPage: {
      params: { project: 'project-a', collection: 'notes' },
      query: { limit: '20' },
      status: 200,
    },
    someFields: {
      params: { project: 'project-a', collection: 'notes' },
      query: { fields: 'title,author.name', include: 'total' },
      status: 200,
    },
    noProject: { params: { project: 'none', collection: 'notes' }, status: 404 },
    noSuchState: {
      params: { project: 'project-a', collection: 'notes' },
      query: { as_of: '9007199254740991' },
      status: 400,
    },
    badCursor: {
      params: { project: 'project-a', collection: 'notes' },
      query: { cursor: 'made-up' },
      status: 400,
    },
  },
});
