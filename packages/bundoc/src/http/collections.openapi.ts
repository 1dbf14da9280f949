import {
  collectionDefinitionSchema,
  collectionListSchema,
  collectionSchema,
  definedCollectionSchema,
  droppedCollectionSchema,
  schemaCheckAnswerSchema,
  schemaCheckRequestSchema,
} from '@bundoc/shared/contract/collections';
import { collectionNameSchema } from '@bundoc/shared/contract/documents';
import { describe, jsonBody } from '@bundoc/shared/openapi/description';
import { z } from 'zod';
import { collectionPathSchema, projectPathSchema } from './access.ts';
import { DEFINITION_REFUSALS, PROJECT_REFUSALS, projectAccess } from './descriptions.ts';
import { PRECONDITION_TEXT, readHeaders, writeHeaders } from './documents.openapi.ts';

const TAG = 'The entity tag of the definition';
const EXAMPLE_PATH = { project: 'project-a', collection: 'notes' };

export const LIST = describe({
  id: 'listCollections',
  tag: 'collections',
  summary: 'List the collections of a project',
  description: 'All collections with a document or a definition, by name.',
  access: projectAccess('docs:read'),
  params: projectPathSchema,
  answers: { 200: { description: 'The collections', schema: collectionListSchema } },
  refusals: PROJECT_REFUSALS,
  examples: {
    list: { params: { project: 'project-a' }, status: 200 },
    noProject: { params: { project: 'none' }, status: 404 },
  },
});

export const READING = describe({
  id: 'getCollection',
  tag: 'collections',
  summary: 'A collection and its definition',
  access: projectAccess('docs:read'),
  params: collectionPathSchema,
  headers: readHeaders,
  answers: {
    200: {
      description: 'The collection; `ETag` is that of its definition',
      schema: collectionSchema,
      headers: { ETag: { description: `${TAG}, if there is one`, optional: true } },
    },
    304: { description: 'The definition has not changed', headers: { ETag: TAG } },
  },
  refusals: [...PROJECT_REFUSALS, 'collection_not_found', 'precondition_failed'],
  examples: {
    get: { params: EXAMPLE_PATH, status: 200 },
    none: { params: { project: 'project-a', collection: 'none' }, status: 404 },
  },
});

const DEFINED = {
  description: 'Defined',
  schema: definedCollectionSchema,
  headers: { ETag: TAG },
};

export const DEFINITION = describe({
  id: 'defineCollection',
  tag: 'collections',
  summary: 'Define a collection',
  description:
    'Replaces the whole definition. New indexes are built in the background: `state` is `building`, then `ready`. ' +
    '`existing` says how many existing documents the schema would refuse, ' +
    'and how many have a value in `ttl.field` that is no time; they do not change. ' +
    `Creates the project if necessary. ${PRECONDITION_TEXT}`,
  access: projectAccess('docs:admin'),
  params: collectionPathSchema,
  headers: writeHeaders,
  body: jsonBody(collectionDefinitionSchema),
  answers: { 200: DEFINED, 201: { ...DEFINED, description: 'Defined for the first time' } },
  refusals: DEFINITION_REFUSALS,
  examples: {
    define: {
      params: { ...EXAMPLE_PATH, collection: 'tasks' },
      body: {
        indexes: [{ fields: ['priority', 'title'] }, { name: 'by-owner', fields: ['owner'] }],
        schema: {
          type: 'object',
          required: ['title'],
          properties: { title: { type: 'string', maxLength: 200 } },
        },
        ttl: { field: 'expires_at', seconds: 3_600 },
      },
      status: 201,
    },
    pattern: {
      summary: 'Regular expressions are refused',
      params: { ...EXAMPLE_PATH, collection: 'tasks' },
      body: { schema: { properties: { title: { pattern: '^(a+)+$' } } } },
      status: 400,
    },
  },
});

export const REMOVAL = describe({
  id: 'undefineCollection',
  tag: 'collections',
  summary: 'Remove the definition of a collection',
  description: `Its documents stay. ${PRECONDITION_TEXT}`,
  access: projectAccess('docs:admin'),
  params: collectionPathSchema,
  headers: writeHeaders,
  answers: { 204: { description: 'Removed' } },
  refusals: [
    ...PROJECT_REFUSALS,
    ...(['key_exhausted', 'collection_not_found', 'precondition_failed', 'idempotency_mismatch'] as const),
  ],
  examples: { none: { params: { project: 'project-a', collection: 'none' }, status: 404 } },
});

export const dropQuerySchema = z.strictObject({
  /** Repeats the name of the collection. */
  confirm: collectionNameSchema.optional(),
});

export const DROP = describe({
  id: 'dropCollection',
  tag: 'collections',
  summary: 'Delete the documents of a collection, and its definition',
  description:
    'Deletes up to 500 documents at once, expired and damaged ones, too. Repeat it while `more` is true; the last answer has removed the definition. ' +
    'Each document leaves a deletion in the feed of changes. Those that are written meanwhile are deleted as well.',
  access: projectAccess('docs:admin'),
  params: collectionPathSchema,
  query: dropQuerySchema,
  answers: { 200: { description: 'What was deleted', schema: droppedCollectionSchema } },
  refusals: [...PROJECT_REFUSALS, 'key_exhausted'],
  examples: {
    empty: { params: { ...EXAMPLE_PATH, collection: 'none' }, query: { confirm: 'none' }, status: 200 },
    unconfirmed: { params: EXAMPLE_PATH, query: { confirm: 'tasks' }, status: 400 },
    noProject: { params: { ...EXAMPLE_PATH, project: 'none' }, query: { confirm: 'notes' }, status: 404 },
  },
});

export const SCHEMA_CHECK = describe({
  id: 'checkSchema',
  tag: 'collections',
  summary: 'Count the documents that a schema would refuse',
  description:
    'A dry run: it changes nothing, and the schema need not be defined. It checks `limit` documents in the order of creation. ' +
    '`next_cursor` is the `cursor` of the next request, with the same schema.',
  access: projectAccess('docs:read', 'docs:admin'),
  params: collectionPathSchema,
  body: jsonBody(schemaCheckRequestSchema),
  answers: { 200: { description: 'The counts', schema: schemaCheckAnswerSchema } },
  refusals: [...PROJECT_REFUSALS, 'invalid_cursor'],
  examples: {
    check: {
      params: EXAMPLE_PATH,
      body: { schema: { required: ['title'], properties: { title: { type: 'string' } } }, limit: 500 },
      status: 200,
    },
    badCursor: { params: EXAMPLE_PATH, body: { schema: {}, cursor: 'made-up' }, status: 400 },
    pattern: {
      summary: 'Regular expressions are refused',
      params: EXAMPLE_PATH,
      body: { schema: { properties: { title: { pattern: '^(a+)+$' } } } },
      status: 400,
    },
    noProject: { params: { ...EXAMPLE_PATH, project: 'none' }, body: { schema: {} }, status: 404 },
  },
});
