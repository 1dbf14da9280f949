import { type Cursor, cursorSchema, encodeCursor } from '@bundoc/shared/contract/cursor';
import { changePageSchema, documentPageSchema } from '@bundoc/shared/contract/documents';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { describe } from '@bundoc/shared/openapi/description';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Documents } from '../service/documents.ts';
import type { DocumentPage } from '../storage/port.ts';
import {
  collectionPath,
  collectionPathSchema,
  guardCollection,
  guardProject,
  projectPath,
  projectPathSchema,
} from './access.ts';
import { PROJECT_REFUSALS, projectAccess } from './descriptions.ts';
import { DOCUMENTS_PATH } from './documents.ts';

const LIMIT_MAX = 1_000;
const LIMIT_DEFAULT = 100;
/** Sealed bytes after which a page of documents ends. */
const PAGE_BYTES_MAX = 16_777_216;

const limitSchema = z
  .string()
  .regex(/^\d{1,4}$/, `must be a whole number from 1 to ${LIMIT_MAX}`)
  .transform(Number)
  .pipe(z.number().min(1).max(LIMIT_MAX))
  .default(LIMIT_DEFAULT)
  .meta({ type: 'integer', minimum: 1, maximum: LIMIT_MAX, default: LIMIT_DEFAULT });
const listQuerySchema = z.strictObject({ limit: limitSchema, cursor: cursorSchema('list').optional() });
const changesQuerySchema = z.strictObject({ limit: limitSchema, since: cursorSchema('changes').optional() });

/** Pages of documents in the order of their creation, and of changes in the order of those. */
export function registerLists(app: FastifyInstance, documents: Documents, auth: BearerAuth): void {
  app.get(
    DOCUMENTS_PATH,
    {
      onRequest: guardCollection(auth, 'docs:read', listQuerySchema),
      config: describe({
        id: 'listDocuments',
        tag: 'documents',
        summary: 'List a collection',
        description:
          'In the order of creation. `next_cursor`, while there are more, is the `cursor` of the next page.',
        access: projectAccess('docs:read'),
        params: collectionPathSchema,
        query: listQuerySchema,
        answers: { 200: { description: 'A page', schema: documentPageSchema } },
        refusals: PROJECT_REFUSALS,
        examples: {
          firstPage: {
            params: { project: 'project-a', collection: 'notes' },
            query: { limit: '20' },
            status: 200,
          },
          noProject: { params: { project: 'none', collection: 'notes' }, status: 404 },
          badCursor: {
            params: { project: 'project-a', collection: 'notes' },
            query: { cursor: 'made-up' },
            status: 400,
          },
        },
      }),
    },
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
    {
      onRequest: guardProject(auth, 'docs:read', changesQuerySchema),
      config: describe({
        id: 'listChanges',
        tag: 'changes',
        summary: 'What changed in a project',
        description:
          'Each document once, at its last change; deletions for seven days. `since` of an answer goes on from there.',
        access: projectAccess('docs:read'),
        params: projectPathSchema,
        query: changesQuerySchema,
        answers: { 200: { description: 'A page', schema: changePageSchema } },
        refusals: [...PROJECT_REFUSALS, 'position_gone'],
        examples: {
          fromTheStart: { params: { project: 'project-a' }, query: { limit: '100' }, status: 200 },
        },
      }),
    },
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
