import type { Hold, Pool } from '@bundoc/shared/admission/pool';
import { freeOnceSent } from '@bundoc/shared/http/answer-bytes';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { HOLDS_MANY } from '@bundoc/shared/http/gate-door';
import { shareOfRequest } from '@bundoc/shared/http/guard';
import type { FastifyInstance } from 'fastify';
import type { z } from 'zod';
import { PAGE_BYTES_MAX } from '../engine/port/page-limits.ts';
import type { ReadPlace } from '../engine/port/snapshot-port.ts';
import type { Documents, ListPage } from '../service/documents.ts';
import { joinInSteps } from '../work/join-in-steps.ts';
import { textBytes } from '../work/large-bytes.ts';
import type { Scheduler } from '../work/scheduler.ts';
import type { Work } from '../work/work.ts';
import { collectionPath, guardCollection } from './access.ts';
import { DOCUMENTS_PATH } from './documents.ts';
import { DESCRIPTION, listQuerySchema } from './lists.openapi.ts';
import { requestWork } from './request-work.ts';

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
        asOf: query.as_of,
        work,
        // Other reads may run while the project is being opened.
        inTurn: async (read) => {
          const place = placeIn(places, () => pageReads.take(shareOfRequest(request), 1, work.signal));
          await work.outside(() => place.retake());
          const page = await read(place);
          // The page stays in memory until it is joined, but the selection of fields runs in turns that may
          // take long.
          if (query.fields !== undefined) {
            work.hold(textBytes(page.documents));
            place.leave();
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

/** A place that is left at the latest with `places`. */
function placeIn(places: DisposableStack, take: () => Promise<Hold>): ReadPlace {
  let held: Hold | undefined;
  return {
    leave: () => held?.[Symbol.dispose](),
    retake: async () => {
      held = places.use(await take());
    },
  };
}

/**
 * `{"documents":[…],"unreadable":[…],"total":…,"next_cursor":"…","as_of":…}`. The bytes of documents do not
 * change. `unreadable` lists ids of undecryptable documents, if any.
 */
function pageText({ texts, unreadable, next, total, asOf }: ListPage, work: Work): Promise<Buffer> {
  const parts: (string | Buffer)[] = ['{"documents":['];
  for (const [at, text] of texts.entries()) {
    if (at > 0) parts.push(',');
    parts.push(text);
  }
  const ids = unreadable.length === 0 ? '' : `,"unreadable":${JSON.stringify(unreadable)}`;
  const count = total === undefined ? '' : `,"total":${total}`;
  const cursor = next === undefined ? '' : `,"next_cursor":"${next}"`;
  parts.push(`]${ids}${count}${cursor},"as_of":${asOf}}`);
  return joinInSteps(parts, work);
}
