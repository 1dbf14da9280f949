import { AppError } from '@bundoc/shared/errors';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Documents } from '../service/documents.ts';
import type { StoredDocument } from '../storage/port.ts';
import { collectionPath, type DocumentPath, documentPath, guardCollection, guardDocument } from './access.ts';
import { bodyOf } from './body.ts';
import { commitOptions } from './idempotency.ts';
import { etagOf, isNotModified, writePrecondition } from './preconditions.ts';

export const DOCUMENTS_PATH = '/v1/projects/:project/collections/:collection/documents';
export const DOCUMENT_PATH = `${DOCUMENTS_PATH}/:id`;

/** The document endpoints (DESIGN section 7). */
export function registerDocuments(app: FastifyInstance, documents: Documents, auth: BearerAuth): void {
  app.post(DOCUMENTS_PATH, { onRequest: guardCollection(auth, 'docs:write') }, async (request, reply) => {
    const { project, collection } = collectionPath(request);
    refusePreconditions(request);
    const metadata = await documents.create(project, collection, bodyOf(request), commitOptions(request));
    reply.code(201).header('location', locationOf({ project, collection, id: metadata._id }));
    reply.header('etag', etagOf(metadata._rev));
    return metadata;
  });

  app.put(DOCUMENT_PATH, { onRequest: guardDocument(auth, 'docs:write') }, async (request, reply) => {
    const path = documentPath(request);
    const precondition = writePrecondition(request.headers);
    const body = bodyOf(request);
    const { created, metadata } = await documents.replace(
      path.project,
      path,
      body,
      precondition,
      commitOptions(request),
    );
    if (created) reply.code(201).header('location', locationOf(path));
    reply.header('etag', etagOf(metadata._rev));
    return metadata;
  });

  app.route({
    url: DOCUMENT_PATH,
    method: ['GET', 'HEAD'],
    onRequest: guardDocument(auth, 'docs:read'),
    handler: (request, reply) => {
      const path = documentPath(request);
      const document = documents.read(path.project, path);
      return document instanceof Promise
        ? document.then((read) => answer(request, reply, read))
        : answer(request, reply, document);
    },
  });

  app.delete(DOCUMENT_PATH, { onRequest: guardDocument(auth, 'docs:write') }, async (request, reply) => {
    const path = documentPath(request);
    await documents.remove(path.project, path, writePrecondition(request.headers), commitOptions(request));
    return reply.code(204).send();
  });
}

/** @returns the body, which Fastify sends; given to `reply.send`, Fastify would watch for the end of the answer. */
function answer(
  request: FastifyRequest,
  reply: FastifyReply,
  { metadata, text }: StoredDocument,
): Buffer | FastifyReply {
  reply.header('etag', etagOf(metadata._rev)).header('cache-control', 'private, no-cache');
  if (isNotModified(request.headers, metadata._rev)) return reply.code(304).send();
  reply.header('content-type', 'application/json; charset=utf-8');
  return text;
}

/** A POST always creates, under an id that may not be known yet: no tag can apply to it. */
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
