import { batchAnswerSchema, batchSchema } from '@bundoc/shared/contract/batch';
import { describe, jsonBody } from '@bundoc/shared/openapi/description';
import { projectPathSchema } from './access.ts';
import { projectAccess, WRITE_REFUSALS } from './descriptions.ts';
import { idempotencyHeaders } from './idempotency.ts';

const EXAMPLE_PATH = { project: 'project-a' };

export const DESCRIPTION = describe({
  id: 'writeBatch',
  tag: 'documents',
  summary: 'Write several documents, all or none of them',
  description:
    'Each operation must be on a different document. If a precondition fails, `errors` of the refusal lists every failed one with the current `etag` of its document. ' +
    'A `patch` also needs `docs:read`.',
  access: projectAccess('docs:write'),
  params: projectPathSchema,
  headers: idempotencyHeaders,
  body: jsonBody(batchSchema),
  answers: { 200: { description: 'Written; a result for each operation', schema: batchAnswerSchema } },
  refusals: [
    ...WRITE_REFUSALS,
    ...(['precondition_failed', 'invalid_patch', 'patch_test_failed', 'patch_inapplicable'] as const),
  ],
  examples: {
    several: {
      params: EXAMPLE_PATH,
      body: {
        operations: [
          { op: 'create', collection: 'notes', document: { title: 'Hello' } },
          { op: 'put', collection: 'drafts', id: 'first', document: { title: 'Hello' } },
          { op: 'patch', collection: 'notes', id: 'first', merge: { title: 'Hello again' }, if_match: '*' },
        ],
      },
      status: 200,
    },
    refused: {
      summary: 'One of the documents exists, so none is written',
      params: EXAMPLE_PATH,
      body: {
        operations: [
          { op: 'create', collection: 'notes', id: 'first', document: { title: 'Hello' } },
          { op: 'put', collection: 'notes', id: 'second', document: { title: 'Hello' } },
        ],
      },
      status: 412,
    },
    nothing: { params: EXAMPLE_PATH, body: { operations: [] }, status: 400 },
  },
});
