import { AppError } from '@bundoc/shared/contract/app-error';
import { type BatchAnswer, batchAnswerSchema, batchSchema } from '@bundoc/shared/contract/batch';
import { requireScope } from '@bundoc/shared/contract/grants';
import type { FieldFault } from '@bundoc/shared/contract/problem';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { HOLDS_MANY } from '@bundoc/shared/http/gate-door';
import { claimsOf } from '@bundoc/shared/http/guard';
import { describe, jsonBody } from '@bundoc/shared/openapi/description';
import type { FastifyInstance } from 'fastify';
import { readBatchInTurns } from '../documents/large-content.ts';
import type { BatchOperation } from '../documents/operation.ts';
import { etagOf, ifMatchOfBody } from '../documents/precondition-headers.ts';
import type { BatchLimits } from '../documents/read-batch.ts';
import type { WriteResult } from '../engine/port.ts';
import { type FailedWrite, PreconditionsFailed } from '../engine/precondition.ts';
import type { Batches } from '../service/batches.ts';
import type { Scheduler } from '../work/scheduler.ts';
import { guardProject, projectPath, projectPathSchema } from './access.ts';
import { bodyOf } from './body.ts';
import { projectAccess, WRITE_REFUSALS } from './descriptions.ts';
import { commitOptions, idempotencyHeaders } from './idempotency.ts';
import { requestWork } from './request-work.ts';

const EXAMPLE_PATH = { project: 'project-a' };
const BATCH_PATH = '/v1/projects/:project/batch';

export interface BatchRouteLimits extends BatchLimits {
  /** Maximum bytes of a batch. */
  readonly batchBytesMax: number;
}

const DESCRIPTION = describe({
  id: 'writeBatch',
  tag: 'documents',
  summary: 'Write several documents, all or none',
  description:
    'Each operation is on a document of its own. When any precondition does not hold, `errors` of the refusal lists every one that does not, with the `etag` that the document has. ' +
    'A `patch` needs `docs:read` as well.',
  access: projectAccess('docs:write'),
  params: projectPathSchema,
  headers: idempotencyHeaders,
  body: jsonBody(batchSchema),
  answers: { 200: { description: 'Written; a result for each operation', schema: batchAnswerSchema } },
  refusals: [
    ...WRITE_REFUSALS,
    ...(['precondition_failed', 'invalid_patch', 'patch_test_failed', 'patch_inapplicable'] as const),
  ],
  examples: {
    several: {
      params: EXAMPLE_PATH,
      body: {
        operations: [
          { op: 'create', collection: 'notes', document: { title: 'Hello' } },
          { op: 'put', collection: 'drafts', id: 'first', document: { title: 'Hello' } },
          { op: 'patch', collection: 'notes', id: 'first', merge: { title: 'Hello again' }, if_match: '*' },
        ],
      },
      status: 200,
    },
    refused: {
      summary: 'One of the documents exists, so none is written',
      params: EXAMPLE_PATH,
      body: {
        operations: [
          { op: 'create', collection: 'notes', id: 'first', document: { title: 'Hello' } },
          { op: 'put', collection: 'notes', id: 'second', document: { title: 'Hello' } },
        ],
      },
      status: 412,
    },
    nothing: { params: EXAMPLE_PATH, body: { operations: [] }, status: 400 },
  },
});

/** Several writes to a project, all or none. */
export function registerBatch(
  app: FastifyInstance,
  batches: Batches,
  auth: BearerAuth,
  limits: BatchRouteLimits,
  scheduler: Scheduler,
): void {
  app.post(
    BATCH_PATH,
    {
      onRequest: guardProject(auth, 'docs:write'),
      bodyLimit: limits.batchBytesMax,
      config: { ...HOLDS_MANY, ...DESCRIPTION },
    },
    async (request, reply): Promise<BatchAnswer> => {
      const { project } = projectPath(request);
      using work = requestWork(scheduler, 'batch', request, reply);
      const operations = await readBatchInTurns(bodyOf(request), limits, ifMatchOfBody, work);
      // Whether a patch applies reveals the content of a document.
      if (operations.some(({ op }) => op === 'patch')) requireScope(claimsOf(request), 'docs:read');
      try {
        const results = await batches.run(project, operations, await commitOptions(request, work));
        return { results: results.map((result, at) => resultOf(operations[at], result)) };
      } catch (error) {
        if (!(error instanceof PreconditionsFailed)) throw error;
        const errors = error.failed.map((failed) => faultOf(operations[failed.index], failed));
        throw new AppError('precondition_failed', { errors, cause: error });
      }
    },
  );
}

function resultOf(
  operation: BatchOperation | undefined,
  result: WriteResult,
): BatchAnswer['results'][number] {
  const { created, metadata } = result;
  if (metadata !== undefined) return { ...metadata, created };
  if (operation === undefined) throw new Error('a result has no operation');
  return { _id: operation.ref.id, _collection: operation.ref.collection, deleted: true };
}

function faultOf(operation: BatchOperation | undefined, { index, rev }: FailedWrite): FieldFault {
  const path = `body.operations.${index}`;
  if (rev === undefined) return { path, message: 'the document does not exist' };
  const message =
    operation?.precondition.kind === 'absent'
      ? 'the document already exists'
      : 'the document is at another revision';
  return { path, message, etag: etagOf(rev) };
}
