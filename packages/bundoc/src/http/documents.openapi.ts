import {
  documentBodySchema,
  documentMetadataSchema,
  documentSchema,
} from '@bundoc/shared/contract/documents';
import { entityTagsSchema } from '@bundoc/shared/contract/headers';
import { describe, jsonBody } from '@bundoc/shared/openapi/description';
import { z } from 'zod';
import { collectionPathSchema, documentPathSchema } from './access.ts';
import { PROJECT_REFUSALS, projectAccess, WRITE_REFUSALS } from './descriptions.ts';
import { idempotencyHeaders } from './idempotency.ts';

const EXAMPLE_PATH = { project: 'project-a', collection: 'notes' };
const EXAMPLE_DOCUMENT_PATH = { ...EXAMPLE_PATH, id: 'first' };
const EXAMPLE_BODY = { title: 'Hello', amount: 1.1 };
const EXAMPLE_METADATA = {
  _id: 'first',
  _collection: 'notes',
  _rev: '3f1b0e5a9f0c4f0e8a531d2f',
  _created: '2026-11-25T08:00:00.000Z',
  _updated: '2026-11-25T08:00:00.000Z',
};
const TAG_HEADERS = { ETag: 'The entity tag of the revision' };
const CREATED = {
  description: 'Created; the metadata of the document',
  schema: documentMetadataSchema,
  headers: { ...TAG_HEADERS, Location: 'Path of the document' },
};
const preconditionHeaders = { 'if-match': entityTagsSchema.optional() };
export const readHeaders = z.object({ ...preconditionHeaders, 'if-none-match': entityTagsSchema.optional() });

/** What the refusal of a precondition has. */
export const PRECONDITION_TEXT =
  'If the precondition does not hold, `errors` of the refusal has the current `etag`, if there is one.';

/** Headers of every write with a document id in the path. */
export const writeHeaders = idempotencyHeaders.extend({
  ...preconditionHeaders,
  'if-none-match': z.literal('*').optional(),
});

export const READING = describe({
  id: 'readDocument',
  tag: 'documents',
  summary: 'Read a document',
  description: 'The text that was written, after the metadata.',
  access: projectAccess('docs:read'),
  params: documentPathSchema,
  headers: readHeaders,
  answers: {
    200: { description: 'The document', schema: documentSchema, headers: TAG_HEADERS },
    304: { description: '`If-None-Match` names the current revision', headers: TAG_HEADERS },
  },
  refusals: [...PROJECT_REFUSALS, 'document_not_found', 'precondition_failed'],
  examples: {
    read: {
      params: EXAMPLE_DOCUMENT_PATH,
      status: 200,
      answer: { ...EXAMPLE_METADATA, ...EXAMPLE_BODY },
    },
    notModified: { params: EXAMPLE_DOCUMENT_PATH, headers: { 'if-none-match': '*' }, status: 304 },
    another: { params: { ...EXAMPLE_PATH, id: 'none' }, status: 404 },
    changed: {
      summary: 'The document has another revision',
      params: EXAMPLE_DOCUMENT_PATH,
      headers: { 'if-match': '"an-older-one"' },
      status: 412,
    },
  },
});

export const CREATION = describe({
  id: 'createDocument',
  tag: 'documents',
  summary: 'Create a document',
  description:
    'Under the `_id` of the body, or under a new id that sorts by time. The first document creates the project.',
  access: projectAccess('docs:write'),
  params: collectionPathSchema,
  headers: idempotencyHeaders,
  body: jsonBody(documentBodySchema),
  answers: { 201: CREATED },
  refusals: [...WRITE_REFUSALS, 'document_exists'],
  examples: {
    create: {
      params: EXAMPLE_PATH,
      body: { _id: 'second', ...EXAMPLE_BODY },
      status: 201,
      answer: { ...EXAMPLE_METADATA, _id: 'second' },
    },
    newId: { summary: 'With a new id', params: EXAMPLE_PATH, body: EXAMPLE_BODY, status: 201 },
    exists: { params: EXAMPLE_PATH, body: { _id: 'first', ...EXAMPLE_BODY }, status: 409 },
    notAllowed: { params: EXAMPLE_PATH, body: { _secret: 1 }, status: 400 },
  },
});

export const REPLACEMENT = describe({
  id: 'putDocument',
  tag: 'documents',
  summary: 'Create or replace a document',
  description:
    '`If-None-Match: *` only creates, `If-Match` only replaces. `_rev` in the body acts as `If-Match`. ' +
    PRECONDITION_TEXT,
  access: projectAccess('docs:write'),
  params: documentPathSchema,
  headers: writeHeaders,
  body: jsonBody(documentBodySchema),
  answers: {
    200: {
      description: 'Replaced; the metadata of the document',
      schema: documentMetadataSchema,
      headers: TAG_HEADERS,
    },
    201: CREATED,
  },
  refusals: [...WRITE_REFUSALS, 'precondition_failed'],
  examples: {
    replace: { params: EXAMPLE_DOCUMENT_PATH, body: EXAMPLE_BODY, status: 200, answer: EXAMPLE_METADATA },
    replaceOnly: {
      params: EXAMPLE_DOCUMENT_PATH,
      headers: { 'if-match': '*' },
      body: EXAMPLE_BODY,
      status: 200,
    },
    create: { params: { ...EXAMPLE_PATH, id: 'third' }, body: EXAMPLE_BODY, status: 201 },
    createOnly: {
      summary: 'The document exists',
      params: EXAMPLE_DOCUMENT_PATH,
      headers: { 'if-none-match': '*' },
      body: EXAMPLE_BODY,
      status: 412,
    },
  },
});

export const REMOVAL = describe({
  id: 'deleteDocument',
  tag: 'documents',
  summary: 'Delete a document',
  description: PRECONDITION_TEXT,
  access: projectAccess('docs:write'),
  params: documentPathSchema,
  headers: writeHeaders,
  answers: { 204: { description: 'Deleted' } },
  // It neither creates a project nor adds anything.
  refusals: [
    ...PROJECT_REFUSALS,
    ...(['idempotency_mismatch', 'key_exhausted'] as const),
    ...(['document_not_found', 'precondition_failed'] as const),
  ],
  examples: {
    delete: { params: EXAMPLE_DOCUMENT_PATH, status: 204 },
    another: { params: { ...EXAMPLE_PATH, id: 'none' }, status: 404 },
  },
});
