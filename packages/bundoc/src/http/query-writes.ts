import { QUERY_BYTES_MAX } from '@bundoc/shared/contract/query';
import { deleteWhereSchema, updateWhereSchema } from '@bundoc/shared/contract/query-writes';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { HOLDS_MANY } from '@bundoc/shared/http/gate-door';
import { type RootMember, valueStartOf } from '@bundoc/shared/json/scan';
import type { FastifyInstance } from 'fastify';
import { readPatchInTurns } from '../documents/large-content.ts';
import type { QueryWriteAnswer, QueryWrites } from '../service/query-writes.ts';
import type { Scheduler } from '../work/scheduler.ts';
import { collectionPath, guardCollection } from './access.ts';
import { bodyOf } from './body.ts';
import { commitOptions } from './idempotency.ts';
import { DELETE_WHERE, UPDATE_WHERE } from './query-writes.openapi.ts';
import { readQuery } from './read-query.ts';
import { requestWork } from './request-work.ts';

const COLLECTION_PATH = '/v1/projects/:project/collections/:collection';

/** Changes and deletions of the documents that a condition holds for (docs/updates.md). */
export function registerQueryWrites(
  app: FastifyInstance,
  writes: QueryWrites,
  auth: BearerAuth,
  limits: { readonly documentBytesMax: number },
  scheduler: Scheduler,
): void {
  // The counts reveal content.
  const options = {
    onRequest: guardCollection(auth, ['docs:write', 'docs:read']),
    bodyLimit: QUERY_BYTES_MAX,
  };
  app.post(
    `${COLLECTION_PATH}/update`,
    { ...options, config: { ...HOLDS_MANY, ...UPDATE_WHERE } },
    async (request, reply) => {
      using work = requestWork(scheduler, 'batch', request, reply);
      const { body, members, where, whereText } = await readQuery(request, updateWhereSchema, work);
      const patchText = memberBytes(bodyOf(request), members, 'update');
      const patch = await readPatchInTurns('update', patchText, limits.documentBytesMax, work, 'body.update');
      const { limit, cursor, dry_run: isDryRun } = body;
      const answer = await writes.run(
        { ...collectionPath(request), where, whereText, patch, patchText, limit, cursor, isDryRun },
        await commitOptions(request, work),
      );
      return { matched: answer.matched, changed: answer.written, ...restOf(answer) };
    },
  );

  app.post(
    `${COLLECTION_PATH}/delete`,
    { ...options, config: { ...HOLDS_MANY, ...DELETE_WHERE } },
    async (request, reply) => {
      using work = requestWork(scheduler, 'batch', request, reply);
      const { body, where, whereText } = await readQuery(request, deleteWhereSchema, work);
      const { limit, cursor, dry_run: isDryRun } = body;
      const deletion = { patch: undefined, patchText: '' };
      const answer = await writes.run(
        { ...collectionPath(request), where, whereText, ...deletion, limit, cursor, isDryRun },
        await commitOptions(request, work),
      );
      return { matched: answer.matched, deleted: answer.written, ...restOf(answer) };
    },
  );
}

function memberBytes(bytes: Buffer, members: readonly RootMember[], name: string): Buffer {
  const member = members.find((one) => one.name === name);
  if (member === undefined) throw new Error(`the body has no ${name}`);
  return bytes.subarray(valueStartOf(bytes, member), member.end);
}

function restOf({ unreadable, next, ids }: QueryWriteAnswer) {
  return {
    ...(next === undefined ? {} : { next_cursor: next }),
    ...(unreadable.length === 0 ? {} : { unreadable }),
    ...(ids === undefined ? {} : { ids }),
  };
}
