import type { Pool } from '@bundoc/shared/admission/pool';
import { documentPageSchema } from '@bundoc/shared/contract/documents';
import { freeOnceSent } from '@bundoc/shared/http/answer-bytes';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { HOLDS_MANY } from '@bundoc/shared/http/gate-door';
import { shareOfRequest } from '@bundoc/shared/http/guard';
import { describe } from '@bundoc/shared/openapi/description';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { fieldsParameterSchema } from '../documents/fields.ts';
import { LIMIT_DEFAULT, limitSchema, PAGE_BYTES_MAX } from '../engine/page-limits.ts';
import type { Documents, ListPage } from '../service/documents.ts';
import { joinInSteps } from '../work/join-in-steps.ts';
import { textBytes } from '../work/large-bytes.ts';
import type { Scheduler } from '../work/scheduler.ts';
import type { Work } from '../work/work.ts';
import { collectionPath, collectionPathSchema, guardCollection } from './access.ts';
import { PROJECT_REFUSALS, projectAccess } from './descriptions.ts';
import { DOCUMENTS_PATH } from './documents.ts';
import { requestWork } from './request-work.ts';

const listQuerySchema = z.strictObject({
  limit: limitSchema.default(LIMIT_DEFAULT),
  cursor: z.string().min(1).max(1_024).optional(),
  fields: fieldsParameterSchema.optional(),
  include: z.literal('total', 'must be "total"').optional(),
});

const DESCRIPTION = describe({
  id: 'listDocuments',
  tag: 'documents',
  summary: 'List a collection',
  description:
    'In the order of creation. `next_cursor`, while there may be more (also after a page that is short, or empty), is the `cursor` of ' +
    'the next page; it belongs to the collection and the `fields`. `include=total` counts the documents of the collection.',
  access: projectAccess('docs:read'),
  params: collectionPathSchema,
  query: listQuerySchema,
  answers: { 200: { description: 'A page', schema: documentPageSchema } },
  refusals: [...PROJECT_REFUSALS, 'invalid_cursor'],
  examples: {
    firstPage: {
      params: { project: 'project-a', collection: 'notes' },
      query: { limit: '20' },
      status: 200,
    },
    someFields: {
      params: { project: 'project-a', collection: 'notes' },
      query: { fields: 'title,author.name', include: 'total' },
      status: 200,
    },
    noProject: { params: { project: 'none', collection: 'notes' }, status: 404 },
    badCursor: {
      params: { project: 'project-a', collection: 'notes' },
      query: { cursor: 'made-up' },
      status: 400,
    },
  },
});

/** Pages of documents in creation order. */
export function registerLists(
  app: FastifyInstance,
  documents: Documents,
  auth: BearerAuth,
  scheduler: Scheduler,
  pageReads: Pool,
): void {
  app.get(
    DOCUMENTS_PATH,
    {
      onRequest: guardCollection(auth, 'docs:read', listQuerySchema),
      config: { ...HOLDS_MANY, ...DESCRIPTION },
    },
    async (request, reply) => {
      const { project, collection } = collectionPath(request);
      const { include, ...query } = request.query as z.infer<typeof listQuerySchema>;
      using work = requestWork(scheduler, 'projection', request, reply);
      using places = new DisposableStack();
      const page = await documents.list(project, {
        collection,
        bytesMax: PAGE_BYTES_MAX,
        cursor: query.cursor,
        fields: query.fields,
        limit: query.limit,
        total: include === 'total',
        work,
        // Other reads may run while the project is being opened.
        inTurn: async (read) => {
          const place = places.use(await work.outside(() => pageReads.take(shareOfRequest(request), 1)));
          const page = await read();
          // The page stays in memory until it is joined, but the selection of fields runs in turns that may
          // take long.
          if (query.fields !== undefined) {
            work.hold(textBytes(page.documents));
            place[Symbol.dispose]();
          }
          return page;
        },
      });
      reply
        .header('cache-control', 'private, no-cache')
        .header('content-type', 'application/json; charset=utf-8');
      return reply.send(freeOnceSent(request, await pageText(page, work)));
    },
  );
}

/**
 * `{"documents":[…],"unreadable":[…],"total":…,"next_cursor":"…"}`. The bytes of documents do not
 * change. `unreadable` lists ids of undecryptable documents, if any.
 */
function pageText({ texts, unreadable, next, total }: ListPage, work: Work): Promise<Buffer> {
  const parts: (string | Buffer)[] = ['{"documents":['];
  for (const [at, text] of texts.entries()) {
    if (at > 0) parts.push(',');
    parts.push(text);
  }
  const ids = unreadable.length === 0 ? '' : `,"unreadable":${JSON.stringify(unreadable)}`;
  const count = total === undefined ? '' : `,"total":${total}`;
  const cursor = next === undefined ? '' : `,"next_cursor":"${next}"`;
  parts.push(`]${ids}${count}${cursor}}`);
  return joinInSteps(parts, work);
}
