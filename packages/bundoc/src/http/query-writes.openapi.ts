import {
  deletedWhereSchema,
  deleteWhereSchema,
  updatedWhereSchema,
  updateWhereSchema,
} from '@bundoc/shared/contract/query-writes';
import { describe, jsonBody, type RouteDescription } from '@bundoc/shared/openapi/description';
import { collectionPathSchema } from './access.ts';
import { PROJECT_REFUSALS, projectAccess, WRITE_REFUSALS } from './descriptions.ts';
import { idempotencyHeaders } from './idempotency.ts';

const EXAMPLE_PATH = { project: 'project-a', collection: 'notes' };

const COMMON = {
  tag: 'queries',
  access: projectAccess('docs:write', 'docs:read'),
  params: collectionPathSchema,
  headers: idempotencyHeaders,
} as const satisfies Partial<RouteDescription>;

const REFUSALS = [
  ...PROJECT_REFUSALS,
  'query_too_expensive',
  'invalid_cursor',
  'snapshot_too_old',
  'idempotency_mismatch',
] as const;

const EACH_ANSWER =
  'Each answer is one atomic write of up to `limit` documents, in the order of creation. Repeat the request with `next_cursor` as `cursor` until there is none. ' +
  'An answer may have no document and a cursor. A document that stops matching meanwhile is left alone.';

export const UPDATE_WHERE = describe({
  ...COMMON,
  id: 'updateWhere',
  summary: 'Update the documents that a condition holds for',
  description: EACH_ANSWER,
  body: jsonBody(updateWhereSchema),
  answers: { 200: { description: 'Written, or counted', schema: updatedWhereSchema } },
  refusals: [
    ...REFUSALS,
    ...WRITE_REFUSALS.filter((code) => code !== 'invalid_document'),
    'invalid_patch',
    'patch_inapplicable',
  ],
  examples: {
    update: {
      params: EXAMPLE_PATH,
      body: { where: { title: 'Hello' }, update: { $inc: { views: 1 } } },
      status: 200,
      answer: { matched: 1, changed: 1 },
    },
    dryRun: {
      params: EXAMPLE_PATH,
      body: { where: {}, update: { $set: { seen: true } }, limit: 100, dry_run: true },
      status: 200,
    },
    misfits: {
      params: EXAMPLE_PATH,
      body: { where: { title: 'Hello' }, update: { $inc: { title: 1 } } },
      status: 409,
    },
    noCondition: { params: EXAMPLE_PATH, body: { update: { $inc: { views: 1 } } }, status: 400 },
    noProject: {
      params: { ...EXAMPLE_PATH, project: 'none' },
      body: { where: {}, update: { $inc: { views: 1 } } },
      status: 404,
    },
  },
});

export const DELETE_WHERE = describe({
  ...COMMON,
  id: 'deleteWhere',
  summary: 'Delete the documents that a condition holds for',
  description: EACH_ANSWER,
  body: jsonBody(deleteWhereSchema),
  answers: { 200: { description: 'Deleted, or counted', schema: deletedWhereSchema } },
  refusals: REFUSALS,
  examples: {
    delete: {
      params: EXAMPLE_PATH,
      body: { where: { done: true, at: { $lt: '2026-01-01' } }, limit: 100 },
      status: 200,
    },
    dryRun: { params: EXAMPLE_PATH, body: { where: {}, dry_run: true }, status: 200 },
    noCondition: { params: EXAMPLE_PATH, body: {}, status: 400 },
    badCursor: { params: EXAMPLE_PATH, body: { where: {}, cursor: 'made-up' }, status: 400 },
    noProject: { params: { ...EXAMPLE_PATH, project: 'none' }, body: { where: {} }, status: 404 },
  },
});
