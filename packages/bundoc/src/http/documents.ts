import { BYTE_US } from '@bundoc/shared/admission/account';
import { AppError } from '@bundoc/shared/contract/app-error';
import {
  documentBodySchema,
  documentMetadataSchema,
  documentSchema,
} from '@bundoc/shared/contract/documents';
import { entityTagsSchema } from '@bundoc/shared/contract/headers';
import { freeOnceSent } from '@bundoc/shared/http/answer-bytes';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { describe, jsonBody } from '@bundoc/shared/openapi/description';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { etagOf, isNotModified, writePrecondition } from '../documents/precondition-headers.ts';
import type { StoredDocument } from '../engine/port.ts';
import type { Documents } from '../service/documents.ts';
import type { Scheduler } from '../work/scheduler.ts';
import type { Work } from '../work/work.ts';
import {
  collectionPath,
  collectionPathSchema,
  type DocumentPath,
  documentPath,
  documentPathSchema,
  guardCollection,
  guardDocument,
} from './access.ts';
import { bodyOf } from './body.ts';
import { PROJECT_REFUSALS, projectAccess, WRITE_REFUSALS } from './descriptions.ts';
import { commitOptions, idempotencyHeaders } from './idempotency.ts';
import { requestWork } from './request-work.ts';

/** A read of a smaller document is too cheap to be counted. */
const COUNTED_BYTES_MIN = 16_384;

/** The client of a smaller document is not watched while it is written. */
const WATCHED_BYTES_MIN = 16_384;

export const DOCUMENTS_PATH = '/v1/projects/:project/collections/:collection/documents';
export const DOCUMENT_PATH = `${DOCUMENTS_PATH}/:id`;

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
const TAG_HEADERS = { ETag: 'Of the revision' };
const CREATED = {
  description: 'Created; the metadata of the document',
  schema: documentMetadataSchema,
  headers: { ...TAG_HEADERS, Location: 'Path of the document' },
};
const preconditionHeaders = { 'if-match': entityTagsSchema.optional() };
export const readHeaders = z.object({ ...preconditionHeaders, 'if-none-match': entityTagsSchema.optional() });
/** Headers of every write with a document id in the path. */
export const writeHeaders = idempotencyHeaders.extend({
  ...preconditionHeaders,
  'if-none-match': z.literal('*').optional(),
});

const READING = describe({
  id: 'readDocument',
  tag: 'documents',
  summary: 'Read a document',
  description: 'The text that was written, behind the metadata.',
  access: projectAccess('docs:read'),
  params: documentPathSchema,
  headers: readHeaders,
  answers: {
    200: { description: 'The document', schema: documentSchema, headers: TAG_HEADERS },
    304: { description: '`If-None-Match` names the present revision', headers: TAG_HEADERS },
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

const CREATION = describe({
  id: 'createDocument',
  tag: 'documents',
  summary: 'Create a document',
  description:
    'Under `_id` of the body, or a new id that sorts by time. The first document makes the project.',
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

const REPLACEMENT = describe({
  id: 'putDocument',
  tag: 'documents',
  summary: 'Create or replace a document',
  description:
    '`If-None-Match: *` only creates, `If-Match` only replaces; `_rev` of the body acts as `If-Match`.',
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

const REMOVAL = describe({
  id: 'deleteDocument',
  tag: 'documents',
  summary: 'Delete a document',
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

/** The document endpoints (docs/documents.md). */
export function registerDocuments(
  app: FastifyInstance,
  documents: Documents,
  auth: BearerAuth,
  scheduler: Scheduler,
): void {
  app.post(
    DOCUMENTS_PATH,
    { onRequest: guardCollection(auth, 'docs:write'), config: CREATION },
    async (request, reply) => {
      const { project, collection } = collectionPath(request);
      refusePreconditions(request);
      const body = bodyOf(request);
      using work = writeWork(scheduler, request, reply, body);
      const options = await commitOptions(request, work);
      const metadata = await documents.create(project, collection, body, options);
      reply.code(201).header('location', locationOf({ project, collection, id: metadata._id }));
      reply.header('etag', etagOf(metadata._rev));
      return metadata;
    },
  );

  app.put(
    DOCUMENT_PATH,
    { onRequest: guardDocument(auth, 'docs:write'), config: REPLACEMENT },
    async (request, reply) => {
      const path = documentPath(request);
      const precondition = writePrecondition(request.headers);
      const body = bodyOf(request);
      using work = writeWork(scheduler, request, reply, body);
      const options = await commitOptions(request, work);
      const { created, metadata } = await documents.replace(path.project, path, body, precondition, options);
      if (created) reply.code(201).header('location', locationOf(path));
      reply.header('etag', etagOf(metadata._rev));
      return metadata;
    },
  );

  registerReads(app, documents, auth, scheduler);

  app.delete(
    DOCUMENT_PATH,
    { onRequest: guardDocument(auth, 'docs:write'), config: REMOVAL },
    async (request, reply) => {
      const path = documentPath(request);
      using work = requestWork(scheduler, 'write', request);
      const options = await commitOptions(request, work);
      await documents.remove(path.project, path, writePrecondition(request.headers), options);
      return reply.code(204).send();
    },
  );
}

/**
 * The work of a write. It ends when the client of a large document disconnects before the commit has begun. A
 * small one takes too little time to watch its client.
 */
function writeWork(
  scheduler: Scheduler,
  request: FastifyRequest,
  reply: FastifyReply,
  body: { readonly length: number },
): Work {
  return requestWork(scheduler, 'write', request, body.length < WATCHED_BYTES_MIN ? undefined : reply);
}

function registerReads(
  app: FastifyInstance,
  documents: Documents,
  auth: BearerAuth,
  scheduler: Scheduler,
): void {
  app.route({
    url: DOCUMENT_PATH,
    method: ['GET', 'HEAD'],
    onRequest: guardDocument(auth, 'docs:read'),
    config: READING,
    handler: (request, reply) => {
      const path = documentPath(request);
      if (scheduler.isBusy) return readInTurn(request, reply, path);
      const found = documents.read(path.project, path);
      return found instanceof Promise
        ? found.then((document) => counted(request, reply, document))
        : counted(request, reply, found);
    },
  });

  function counted(request: FastifyRequest, reply: FastifyReply, document: StoredDocument) {
    const us = openingCost(document);
    if (us > 0) requestWork(scheduler, 'read', request).spend(us);
    return answer(request, reply, document);
  }

  /** While the processor is busy, a read waits for its turn. */
  async function readInTurn(
    request: FastifyRequest,
    reply: FastifyReply,
    path: DocumentPath,
  ): Promise<Buffer | FastifyReply> {
    using work = requestWork(scheduler, 'read', request, reply);
    await work.pause();
    let document = documents.read(path.project, path);
    if (document instanceof Promise) {
      work.leave();
      document = await document;
    }
    // Before the slice ends: it is over, then.
    work.spend(openingCost(document));
    return answer(request, reply, document);
  }
}

/** Processor time that a document takes to open and to send, microseconds; 0 for a small one. */
function openingCost({ text }: StoredDocument): number {
  return text.length >= COUNTED_BYTES_MIN ? 2 * text.length * BYTE_US : 0;
}

/**
 * @returns the body, so that Fastify sends it: with `reply.send`, it would watch for the end of the answer.
 */
function answer(
  request: FastifyRequest,
  reply: FastifyReply,
  { metadata, text }: StoredDocument,
): Buffer | FastifyReply {
  reply.header('etag', etagOf(metadata._rev)).header('cache-control', 'private, no-cache');
  if (isNotModified(request.headers, metadata._rev)) return reply.code(304).send();
  reply.header('content-type', 'application/json; charset=utf-8');
  return text.length >= COUNTED_BYTES_MIN ? freeOnceSent(request, text) : text;
}

/** A POST always creates, under an id that may be unknown yet, so no tag can apply to it. */
function refusePreconditions(request: FastifyRequest): void {
  for (const name of ['if-match', 'if-none-match']) {
    if (request.headers[name] !== undefined)
      throw new AppError('invalid_request', {
        errors: [{ path: `headers.${name}`, message: 'has no meaning on POST; use PUT' }],
      });
  }
}

function locationOf({ project, collection, id }: DocumentPath): string {
  return `/v1/projects/${project}/collections/${collection}/documents/${encodeURIComponent(id)}`;
}
