import { AppError } from '@bundoc/shared/contract/app-error';
import {
  aggregateRequestSchema,
  countRequestSchema,
  type Explanation,
  QUERY_BYTES_MAX,
  queryRequestSchema,
} from '@bundoc/shared/contract/query';
import { freeOnceSent, READ } from '@bundoc/shared/http/answer-bytes';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { HOLDS_MANY } from '@bundoc/shared/http/gate-door';
import { validate } from '@bundoc/shared/http/validate';
import type { FastifyInstance, FastifyReply } from 'fastify';
import { type Fields, readFields } from '../documents/fields.ts';
import { projectInTurns } from '../documents/project-text.ts';
import { PAGE_BYTES_MAX } from '../engine/port/page-limits.ts';
import { faultOfHaving, Having } from '../queries/having.ts';
import { whereSchema } from '../queries/where.ts';
import type { AnswerStats, Queries, QueryAnswer } from '../service/queries.ts';
import { faultOfPath } from '../values/path.ts';
import type { Value } from '../values/value.ts';
import { writeValue } from '../values/write-value.ts';
import { joinInSteps } from '../work/join-in-steps.ts';
import type { Scheduler } from '../work/scheduler.ts';
import type { Work } from '../work/work.ts';
import { collectionPath, guardCollection } from './access.ts';
import { AGGREGATION, COUNT, QUERY } from './queries.openapi.ts';
import { readQuery } from './read-query.ts';
import { requestWork } from './request-work.ts';

const COLLECTION_PATH = '/v1/projects/:project/collections/:collection';

/** Queries over the content of documents (docs/query.md). */
export function registerQueries(
  app: FastifyInstance,
  queries: Queries,
  auth: BearerAuth,
  scheduler: Scheduler,
): void {
  const options = { onRequest: guardCollection(auth, 'docs:read'), bodyLimit: QUERY_BYTES_MAX };
  app.post(
    `${COLLECTION_PATH}/query`,
    { ...options, config: { ...READ, ...HOLDS_MANY, ...QUERY } },
    async (request, reply) => {
      using work = requestWork(scheduler, 'query', request, reply);
      const { body, ...condition } = await readQuery(request, queryRequestSchema, work);
      const fields = body.fields && readFields(body.fields);
      if (typeof fields === 'string')
        throw new AppError('invalid_request', { errors: [{ path: 'body.fields', message: fields }] });
      requirePaths(body.orderBy.map(({ field }, at) => [`orderBy.${at}.field`, field]));
      const answer = await queries.query({
        ...collectionPath(request),
        ...body,
        cursor: body.cursor,
        fields: fields?.canonical,
        ...condition,
        bytesMax: PAGE_BYTES_MAX,
        work,
      });
      return await send(reply, await queryParts(answer, fields, body.explain, work), work);
    },
  );

  app.post(
    `${COLLECTION_PATH}/count`,
    { ...options, config: { ...READ, ...HOLDS_MANY, ...COUNT } },
    async (request, reply) => {
      using work = requestWork(scheduler, 'query', request, reply);
      const { body, ...condition } = await readQuery(request, countRequestSchema, work);
      const answer = await queries.count({ ...collectionPath(request), ...condition, work });
      return await send(reply, [`{"count":${answer.count}${statsSuffix(answer, body.explain)}}`], work);
    },
  );

  app.post(
    `${COLLECTION_PATH}/aggregate`,
    { ...options, config: { ...READ, ...HOLDS_MANY, ...AGGREGATION } },
    async (request, reply) => {
      using work = requestWork(scheduler, 'query', request, reply);
      const { body, ...condition } = await readQuery(request, aggregateRequestSchema, work);
      const figures = Object.entries(body.figures);
      const names = figures.map(([name]) => name);
      const having = body.having === undefined ? undefined : readHaving(body.having, names);
      requirePaths([
        ...body.groupBy.map((field, at): [string, string] => [`groupBy.${at}`, field]),
        ...figures.flatMap(([name, figure]): [string, string][] =>
          figure.op === 'count' ? [] : [[`figures.${name}.field`, figure.field]],
        ),
      ]);
      const answer = await queries.aggregate(
        { ...collectionPath(request), ...condition, work },
        body.groupBy,
        figures.map(([, figure]) => figure),
        having,
      );
      const groups: string[] = [];
      for (const group of answer.groups) {
        const turn = work.pause();
        if (turn !== undefined) await turn;
        const by = members(body.groupBy, group.values);
        groups.push(`{"group":${by},"figures":${members(names, group.figures)}}`);
      }
      work.leave();
      return await send(
        reply,
        [`{"groups":[${groups.join(',')}]${statsSuffix(answer, body.explain)}}`],
        work,
      );
    },
  );
}

/** @throws AppError `invalid_request`, also for a condition on anything but the figures. */
function readHaving(having: unknown, names: readonly string[]): Having {
  const where = validate(whereSchema, having, 'body.having');
  const message = faultOfHaving(where, names);
  if (message !== undefined)
    throw new AppError('invalid_request', { errors: [{ path: 'body.having', message }] });
  return new Having(where, names);
}

/** @throws AppError `invalid_request` for an invalid path. */
function requirePaths(fields: readonly (readonly [string, string])[]): void {
  const errors = fields.flatMap(([path, field]) => {
    const message = faultOfPath(field);
    return message === undefined ? [] : [{ path: `body.${path}`, message }];
  });
  if (errors.length > 0) throw new AppError('invalid_request', { errors });
}

async function queryParts(
  answer: QueryAnswer,
  fields: Fields | undefined,
  explain: boolean,
  work: Work,
): Promise<(string | Buffer)[]> {
  const { documents } = answer;
  const texts =
    fields === undefined ? documents.map(({ text }) => text) : await projectInTurns(documents, fields, work);
  const parts: (string | Buffer)[] = ['{"documents":['];
  for (const [at, text] of texts.entries()) {
    if (at > 0) parts.push(',');
    parts.push(text);
  }
  const cursor = answer.next === undefined ? '' : `,"next_cursor":"${answer.next}"`;
  parts.push(`]${cursor}${statsSuffix(answer, explain)}}`);
  return parts;
}

function statsSuffix({ unreadable, explanation, asOf }: AnswerStats, explain: boolean): string {
  const ids = unreadable.length === 0 ? '' : `,"unreadable":${JSON.stringify(unreadable)}`;
  const how = explain ? `,"explain":${JSON.stringify(explanation satisfies Explanation)}` : '';
  return `${ids},"as_of":${asOf}${how}`;
}

/** A JSON object without undefined members. */
function members(names: readonly string[], values: readonly (Value | undefined)[]): string {
  const parts = names.flatMap((name, at) => {
    const value = values[at];
    return value === undefined ? [] : [`${JSON.stringify(name)}:${writeValue(value)}`];
  });
  return `{${parts.join(',')}}`;
}

async function send(reply: FastifyReply, parts: readonly (string | Buffer)[], work: Work): Promise<Buffer> {
  reply
    .header('cache-control', 'private, no-cache')
    .header('content-type', 'application/json; charset=utf-8');
  return freeOnceSent(reply.request, await joinInSteps(parts, work));
}
