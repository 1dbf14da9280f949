import { BYTE_US } from '@bundoc/shared/admission/account';
import { AppError } from '@bundoc/shared/contract/app-error';
import { freeOnceSent } from '@bundoc/shared/http/answer-bytes';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { etagOf, isNotModified, writePrecondition } from '../documents/precondition-headers.ts';
import type { StoredDocument } from '../engine/port/port.ts';
import type { Documents } from '../service/documents.ts';
import type { Scheduler } from '../work/scheduler.ts';
import type { Work } from '../work/work.ts';
import { collectionPath, type DocumentPath, documentPath, guardCollection, guardDocument } from './access.ts';
import { bodyOf } from './body.ts';
import { CREATION, READING, REMOVAL, REPLACEMENT } from './documents.openapi.ts';
import { namingRevision } from './failed-precondition.ts';
import { commitOptions } from './idempotency.ts';
import { requestWork } from './request-work.ts';

/** A read of a smaller document is too cheap to be counted. */
const COUNTED_BYTES_MIN = 16_384;

/** The client of a smaller document is not watched while it is written. */
const WATCHED_BYTES_MIN = 16_384;

export const DOCUMENTS_PATH = '/v1/projects/:project/collections/:collection/documents';
export const DOCUMENT_PATH = `${DOCUMENTS_PATH}/:id`;

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
      const { created, metadata } = await documents
        .replace(path.project, path, body, precondition, options)
        .catch(namingRevision(request.headers));
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
      await documents
        .remove(path.project, path, writePrecondition(request.headers), options)
        .catch(namingRevision(request.headers));
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
