import { type Cursor, cursorSchema, encodeCursor } from '@bundoc/shared/contract/cursor';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Documents } from '../service/documents.ts';
import type { DocumentPage } from '../storage/port.ts';
import { collectionPath, guardCollection, guardProject, projectPath } from './access.ts';
import { DOCUMENTS_PATH } from './documents.ts';
import { PAGE_BYTES_MAX } from './page.ts';

const LIMIT_MAX = 1_000;
const LIMIT_DEFAULT = 100;

const limitSchema = z
  .string()
  .regex(/^\d{1,4}$/, `must be a whole number from 1 to ${LIMIT_MAX}`)
  .transform(Number)
  .pipe(z.number().min(1).max(LIMIT_MAX))
  .default(LIMIT_DEFAULT);
const listQuerySchema = z.strictObject({ limit: limitSchema, cursor: cursorSchema('list').optional() });
const changesQuerySchema = z.strictObject({ limit: limitSchema, since: cursorSchema('changes').optional() });

/** Pages of documents in the order of their creation, and of changes in the order of those. */
export function registerLists(app: FastifyInstance, documents: Documents, auth: BearerAuth): void {
  app.get(
    DOCUMENTS_PATH,
    { onRequest: guardCollection(auth, 'docs:read', listQuerySchema) },
    async (request, reply) => {
      const { project, collection } = collectionPath(request);
      const { limit, cursor } = queryOf<z.infer<typeof listQuerySchema>>(request);
      const after = cursor?.position ?? 0;
      const page = await documents.list(project, { collection, after, limit, bytesMax: PAGE_BYTES_MAX });
      reply
        .header('cache-control', 'private, no-cache')
        .header('content-type', 'application/json; charset=utf-8');
      return reply.send(pageText(page));
    },
  );

  app.get(
    '/v1/projects/:project/changes',
    { onRequest: guardProject(auth, 'docs:read', changesQuerySchema) },
    async (request, reply) => {
      const { project } = projectPath(request);
      const { limit, since } = queryOf<z.infer<typeof changesQuerySchema>>(request);
      const page = await documents.changes(project, since?.position ?? 0, limit, since?.horizon);
      reply.header('cache-control', 'private, no-cache');
      return {
        changes: page.changes.map(({ ref, rev, deleted }) => ({
          _collection: ref.collection,
          _id: ref.id,
          _rev: rev,
          ...(deleted ? { deleted } : {}),
        })),
        since: encodeCursor('changes', page),
      };
    },
  );
}

/**
 * `{"documents":[…],"unreadable":[…],"next_cursor":"…"}`, the documents as the bytes that they are. `unreadable` has the ids of
 * documents whose stored bytes do not open, if there are any.
 */
function pageText({ documents, unreadable, next }: DocumentPage): Buffer {
  const parts: Buffer[] = [Buffer.from('{"documents":[')];
  for (const [at, { text }] of documents.entries()) {
    if (at > 0) parts.push(COMMA);
    parts.push(text);
  }
  const ids = unreadable.length === 0 ? '' : `,"unreadable":${JSON.stringify(unreadable)}`;
  const cursor = next === undefined ? '' : `,"next_cursor":"${encodeCursor('list', { position: next })}"`;
  parts.push(Buffer.from(`]${ids}${cursor}}`));
  return Buffer.concat(parts);
}

const COMMA = Buffer.from(',');

/** The query as the guard's schema left it. */
function queryOf<Q extends { cursor?: Cursor | undefined } | { since?: Cursor | undefined }>(
  request: FastifyRequest,
): Q {
  return request.query as Q;
}
