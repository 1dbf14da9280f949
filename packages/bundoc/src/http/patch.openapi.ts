import { documentMetadataSchema } from '@bundoc/shared/contract/documents';
import { describe } from '@bundoc/shared/openapi/description';
import { mergePatchSchema, operationsSchema } from '../documents/patch/read-patch.ts';
import { updateSchema } from '../documents/patch/read-update.ts';
import { documentPathSchema } from './access.ts';
import { projectAccess, WRITE_REFUSALS } from './descriptions.ts';
import { PRECONDITION_TEXT, writeHeaders } from './documents.openapi.ts';

const EXAMPLE_PATH = { project: 'project-a', collection: 'notes', id: 'first' };
export const DESCRIPTION = describe({
  id: 'patchDocument',
  tag: 'documents',
  summary: 'Change parts of a document',
  description:
    'With a merge patch (RFC 7396), a JSON Patch (RFC 6902), or operators such as `$inc` and `$push`. ' +
    'All other parts keep their exact text. ' +
    PRECONDITION_TEXT,
  access: projectAccess('docs:write', 'docs:read'),
  params: documentPathSchema,
  headers: writeHeaders,
  body: {
    content: {
      'application/merge-patch+json': mergePatchSchema,
      'application/json-patch+json': operationsSchema,
      'application/vnd.bundoc.update+json': updateSchema,
    },
  },
  answers: {
    200: {
      description: 'Changed; the metadata of the document',
      schema: documentMetadataSchema,
      headers: { ETag: 'The entity tag of the revision' },
    },
  },
  refusals: [
    ...WRITE_REFUSALS,
    ...(['project_not_found', 'document_not_found', 'precondition_failed', 'invalid_patch'] as const),
    ...(['patch_test_failed', 'patch_inapplicable'] as const),
  ],
  examples: {
    merge: { params: EXAMPLE_PATH, body: { title: 'Hello again', amount: null }, status: 200 },
    tested: {
      params: EXAMPLE_PATH,
      contentType: 'application/json-patch+json',
      body: [
        { op: 'test', path: '/title', value: 'Hello' },
        { op: 'add', path: '/tags', value: ['a'] },
      ],
      status: 200,
    },
    updated: {
      params: EXAMPLE_PATH,
      contentType: 'application/vnd.bundoc.update+json',
      body: { $inc: { views: 1 }, $push: { readers: { $each: ['ada', 'bob'], $slice: -10 } } },
      status: 200,
    },
    updateMisfits: {
      params: EXAMPLE_PATH,
      contentType: 'application/vnd.bundoc.update+json',
      body: { $inc: { title: 1 } },
      status: 409,
    },
    testFails: {
      params: EXAMPLE_PATH,
      contentType: 'application/json-patch+json',
      body: [{ op: 'test', path: '/title', value: 'Bye' }],
      status: 409,
    },
    another: { params: { ...EXAMPLE_PATH, id: 'none' }, body: { title: 'Hello again' }, status: 404 },
  },
});
