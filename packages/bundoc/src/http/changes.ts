import type { OutgoingHttpHeaders } from 'node:http';
import { HEAVY } from '@bundoc/shared/admission/gate';
import type { Pool } from '@bundoc/shared/admission/pool';
import { AppError } from '@bundoc/shared/contract/app-error';
import { cursorSchema } from '@bundoc/shared/contract/cursor';
import { preferred } from '@bundoc/shared/http/accept';
import { freeOnceSent } from '@bundoc/shared/http/answer-bytes';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { varyBy } from '@bundoc/shared/http/cors';
import { disconnectSignal } from '@bundoc/shared/http/disconnect-signal';
import { EventStream } from '@bundoc/shared/http/event-stream';
import { answerByHand, placesOfRequest } from '@bundoc/shared/http/gate-door';
import { shareOfRequest } from '@bundoc/shared/http/guard';
import { StreamBufferBudget } from '@bundoc/shared/http/stream-buffer-budget';
import { validate } from '@bundoc/shared/http/validate';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { LIMIT_DEFAULT, PAGE_BYTES_MAX } from '../engine/port/page-limits.ts';
import type { ChangeFeed, Since } from '../service/change-feed.ts';
import { changeTexts, cursorOf } from '../service/change-text.ts';
import type { FeedFilter, FeedPage } from '../service/read-changes.ts';
import type { Scheduler } from '../work/scheduler.ts';
import type { Work } from '../work/work.ts';
import { guardProject, projectPath } from './access.ts';
import { DESCRIPTION, FORMATS, querySchema } from './changes.openapi.ts';
import { requestWork } from './request-work.ts';

/**
 * Maximum bytes that wait for a stream's reader. They never exceed one batch or one document; more is a
 * defect.
 */
const STREAM_BYTES_MAX = 67_108_864;

type Query = z.infer<typeof querySchema>;

/**
 * The change feed of a project: a page, a long poll, or a stream of server-sent events.
 *
 * @param streamBytes limits the bytes that streams hold for their readers. A stream without capacity is
 *   closed, and its client resumes.
 */
export function registerChanges(
  app: FastifyInstance,
  feed: ChangeFeed,
  auth: BearerAuth,
  streamBytes: Pool,
  scheduler: Scheduler,
): void {
  const room = new StreamBufferBudget(streamBytes);
  app.addHook('preClose', async () => feed.close());

  app.get(
    '/v1/projects/:project/changes',
    { onRequest: guardProject(auth, 'docs:read', querySchema), config: { ...DESCRIPTION, places: placesOf } },
    async (request, reply) => {
      const { project } = projectPath(request);
      const query = request.query as Query;
      const filter = filterOf(query);
      const format = preferred(request.headers.accept, FORMATS) ?? 'application/json';
      varyBy(reply, 'Accept');
      if (format === 'text/event-stream') {
        if (request.method !== 'HEAD') return stream({ feed, auth, room }, request, reply);
        refuseForStream(query);
        await feed.begin(project, toSince(streamStart(request, query)));
        reply.header('content-type', format);
        return reply.send();
      }
      const limits = { limit: query.limit ?? LIMIT_DEFAULT, bytesMax: PAGE_BYTES_MAX };
      const since = toSince(query.since);
      const { wait = 0 } = query;
      const page =
        wait === 0
          ? await feed.page(project, since, filter, limits)
          : await feed.nextPage(project, since, filter, limits, {
              signal: disconnectSignal(reply),
              waitMs: wait * 1_000,
              requireAllowed: () => auth.authenticate(request),
              places: placesOfRequest(request),
            });
      using work = requestWork(scheduler, 'changes', request, reply);
      // The documents, and the page that is made of them.
      work.hold(2 * page.events.reduce((sum, { text }) => sum + (text?.length ?? 0), 0));
      const text = await (format === 'application/json' ? encodeJson(page, work) : encodeLines(page, work));
      reply.header('cache-control', 'private, no-cache').header('content-type', `${format}; charset=utf-8`);
      return reply.send(freeOnceSent(request, text));
    },
  );
}

/** A stream has one place, and only until it has begun: its reads take turns of their own. */
function placesOf({ headers }: FastifyRequest): number {
  return preferred(headers.accept, FORMATS) === 'text/event-stream' ? 1 : HEAVY;
}

interface StreamDeps {
  readonly feed: ChangeFeed;
  readonly auth: BearerAuth;
  readonly room: StreamBufferBudget;
}

/** Answers with the changes as server-sent events, until the client has gone or the feed ends. */
async function stream(
  { feed, auth, room }: StreamDeps,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const { project } = projectPath(request);
  const query = request.query as Query;
  refuseForStream(query);
  const since = streamStart(request, query);
  using held = new DisposableStack();
  const place = held.use(feed.reserve(project));
  const begin = await feed.begin(project, toSince(since));
  const response = reply.raw;
  answerByHand(request, reply);
  if (response.destroyed) return reply;
  const share = shareOfRequest(request);
  const sink = new EventStream(response, {
    headers: reply.getHeaders() as OutgoingHttpHeaders,
    waitingBytesMax: STREAM_BYTES_MAX,
    room: { of: room, key: share },
  });
  // The project's key may have been revoked since the place was taken.
  if (place.ending.aborted) {
    sink.end();
    return reply;
  }
  const isAllowed = authorizationCheck(auth, request);
  held.defer(feed.follow(project, filterOf(query), { sink, share, place: begin, isAllowed }));
  const all = held.move();
  response.once('close', () => all.dispose());
  return reply;
}

/**
 * Returns whether the request's token is still valid. Revalidation is asynchronous; the next call returns its
 * result.
 */
function authorizationCheck(auth: BearerAuth, request: FastifyRequest): () => boolean {
  let isAllowed = true;
  const refuse = () => {
    isAllowed = false;
  };
  return () => {
    try {
      const claims = auth.authenticate(request);
      if (claims instanceof Promise) claims.catch(refuse);
    } catch {
      refuse();
    }
    return isAllowed;
  };
}

/** The start of a stream: after the last event that the client names, or as requested. */
function streamStart(request: FastifyRequest, query: Query): Query['since'] {
  const lastEventId = request.headers['last-event-id'];
  if (typeof lastEventId !== 'string' || lastEventId === '') return query.since;
  const schema = z.object({ 'last-event-id': cursorSchema('changes') });
  return validate(schema, { 'last-event-id': lastEventId }, 'headers')['last-event-id'];
}

function filterOf({ collection, include }: Query): FeedFilter {
  return { collection, documents: include !== undefined };
}

/** The start of a page; the beginning without a cursor. */
function toSince(since: Query['since']): Since {
  if (since === undefined) return { position: 0, horizon: 0 };
  return since === 'now' ? since : { position: since.position, horizon: since.horizon ?? 0 };
}

function refuseForStream(query: Query): void {
  for (const name of ['limit', 'wait'] as const) {
    if (query[name] !== undefined)
      throw new AppError('invalid_request', {
        errors: [{ path: `query.${name}`, message: 'has no meaning for a stream of events' }],
      });
  }
}

/** `{"changes":[…],"since":"…","more":true}`; `more` only if an immediate request may return more. */
async function encodeJson(page: FeedPage, work: Work): Promise<Buffer> {
  const texts = await changeTexts(page.events, work);
  const parts = texts.flatMap((text, at) => (at === 0 ? [text] : [COMMA, text]));
  return Buffer.concat([Buffer.from('{"changes":['), ...parts, Buffer.from(`],${endOf(page)}}`)]);
}

/** One line for each change, and a last line with the position to resume from. */
async function encodeLines(page: FeedPage, work: Work): Promise<Buffer> {
  const texts = await changeTexts(page.events, work);
  return Buffer.concat([...texts.flatMap((text) => [text, LINE_END]), Buffer.from(`{${endOf(page)}}\n`)]);
}

function endOf(page: FeedPage): string {
  return `"since":"${cursorOf(page)}"${page.more ? ',"more":true' : ''}`;
}

const COMMA = Buffer.from(',');
const LINE_END = Buffer.from('\n');
