import {
  aggregateAnswerSchema,
  aggregateRequestSchema,
  countAnswerSchema,
  countRequestSchema,
  queryAnswerSchema,
  queryRequestSchema,
} from '@bundoc/shared/contract/query';
import { describe, jsonBody, type RouteDescription } from '@bundoc/shared/openapi/description';
import { collectionPathSchema } from './access.ts';
import { PROJECT_REFUSALS, projectAccess } from './descriptions.ts';

const EXAMPLE_PATH = { project: 'project-a', collection: 'notes' };

const COMMON = {
  tag: 'queries',
  access: projectAccess('docs:read'),
  params: collectionPathSchema,
  refusals: [...PROJECT_REFUSALS, 'query_too_expensive', 'invalid_cursor', 'snapshot_too_old'],
} as const satisfies Partial<RouteDescription>;

export const QUERY = describe({
  ...COMMON,
  id: 'queryDocuments',
  summary: 'Find documents by their content',
  description:
    'In any order, page by page. Conditions are like those of MongoDB; docs/query.md defines them.',
  body: jsonBody(queryRequestSchema),
  answers: { 200: { description: 'A page', schema: queryAnswerSchema } },
  examples: {
    everything: { params: EXAMPLE_PATH, body: {}, status: 200 },
    inOrder: {
      params: EXAMPLE_PATH,
      body: {
        where: { priority: { $gte: 3 }, tags: 'draft' },
        orderBy: [{ field: 'priority', direction: 'desc' }],
        limit: 20,
        fields: ['title', 'priority'],
        explain: true,
      },
      status: 200,
    },
    partOfText: {
      params: EXAMPLE_PATH,
      body: { where: { title: { $contains: 'hell', $options: 'i' } } },
      status: 200,
    },
    unknownOperator: { params: EXAMPLE_PATH, body: { where: { title: { $regex: 'H.*' } } }, status: 400 },
    badCursor: { params: EXAMPLE_PATH, body: { cursor: 'made-up' }, status: 400 },
    noSuchState: { params: EXAMPLE_PATH, body: { as_of: Number.MAX_SAFE_INTEGER }, status: 400 },
    noProject: { params: { ...EXAMPLE_PATH, project: 'none' }, body: {}, status: 404 },
  },
});

export const COUNT = describe({
  ...COMMON,
  id: 'countDocuments',
  summary: 'Count documents by their content',
  body: jsonBody(countRequestSchema),
  answers: { 200: { description: 'The number of documents', schema: countAnswerSchema } },
  examples: {
    count: {
      params: EXAMPLE_PATH,
      body: { where: { title: 'Hello' } },
      status: 200,
      answer: { count: 1, as_of: 42 },
    },
    notAllowed: { params: EXAMPLE_PATH, body: { limit: 1 }, status: 400 },
  },
});

export const AGGREGATION = describe({
  ...COMMON,
  id: 'aggregateDocuments',
  summary: 'Compute figures of documents by group',
  description:
    'Sums are exact decimals, averages have 34 significant digits; docs/query.md defines all figures.',
  body: jsonBody(aggregateRequestSchema),
  answers: {
    200: { description: 'The groups, in the order of their values', schema: aggregateAnswerSchema },
  },
  examples: {
    byGroup: {
      params: EXAMPLE_PATH,
      body: {
        groupBy: ['country'],
        figures: { documents: { op: 'count' }, total: { op: 'sum', field: 'amount' } },
      },
      status: 200,
    },
    someGroups: {
      params: EXAMPLE_PATH,
      body: {
        groupBy: ['country'],
        figures: {
          usual: { op: 'percentile', field: 'amount', percent: 50 },
          customers: { op: 'countDistinct', field: 'customer' },
          products: { op: 'distinct', field: 'product' },
        },
        having: { customers: { $gte: 10 } },
      },
      status: 200,
    },
    noSuchFigure: {
      params: EXAMPLE_PATH,
      body: { figures: { documents: { op: 'count' } }, having: { document: 5 } },
      status: 400,
    },
    unknownFigure: {
      params: EXAMPLE_PATH,
      body: { figures: { x: { op: 'median', field: 'a' } } },
      status: 400,
    },
  },
});
