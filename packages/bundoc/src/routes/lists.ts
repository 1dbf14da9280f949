import { cursorSchema, encodeCursor } from '@bundoc/shared/contract/cursor';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Documents } from '../service/documents.ts';
import type { DocumentPage } from '../storage/port.ts';
import { collectionPath, guardCollection } from './access.ts';
import { DOCUMENTS_PATH } from './documents.ts';
import { LIMIT_DEFAULT, limitSchema, PAGE_BYTES_MAX } from './page-limits.ts';

const listQuerySchema = z.strictObject({
  limit: limitSchema.default(LIMIT_DEFAULT),
  cursor: cursorSchema('list').optional(),
});

/** Pages of documents in the order of their creation. */
export function registerLists(app: FastifyInstance, documents: Documents, auth: BearerAuth): void {
  app.get(
    DOCUMENTS_PATH,
    { onRequest: guardCollection(auth, 'docs:read', listQuerySchema) },
    async (request, reply) => {
      const { project, collection } = collectionPath(request);
      const { limit, cursor } = request.query as z.infer<typeof listQuerySchema>;
      const after = cursor?.position ?? 0;
      const page = await documents.list(project, { collection, after, limit, bytesMax: PAGE_BYTES_MAX });
      reply
        .header('cache-control', 'private, no-cache')
        .header('content-type', 'application/json; charset=utf-8');
      return reply.send(pageText(page));
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
