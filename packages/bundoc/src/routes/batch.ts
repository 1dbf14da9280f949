import type { BatchAnswer } from '@bundoc/shared/contract/batch';
import type { FieldFault } from '@bundoc/shared/contract/problem';
import { AppError } from '@bundoc/shared/errors';
import { requireScope } from '@bundoc/shared/grants';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import type { FastifyInstance } from 'fastify';
import type { BatchOperation } from '../batch/operation.ts';
import { type BatchLimits, readBatch } from '../batch/read-batch.ts';
import type { Batches } from '../service/batches.ts';
import type { WriteResult } from '../storage/port.ts';
import { type FailedWrite, PreconditionsFailed } from '../storage/precondition.ts';
import { claimsOf, guardProject, projectPath } from './access.ts';
import { bodyOf } from './body.ts';
import { commitOptions } from './idempotency.ts';
import { etagOf, ifMatchOfBody } from './preconditions.ts';

export const BATCH_PATH = '/v1/projects/:project/batch';

export interface BatchRouteLimits extends BatchLimits {
  /** Bytes of a whole batch. */
  readonly batchBytesMax: number;
}

/** Several writes of a project, all or none. */
export function registerBatch(
  app: FastifyInstance,
  batches: Batches,
  auth: BearerAuth,
  limits: BatchRouteLimits,
): void {
  app.post(
    BATCH_PATH,
    { onRequest: guardProject(auth, 'docs:write'), bodyLimit: limits.batchBytesMax },
    async (request): Promise<BatchAnswer> => {
      const { project } = projectPath(request);
      const operations = readBatch(bodyOf(request), limits, ifMatchOfBody);
      // Whether a patch fits tells what a document holds.
      if (operations.some(({ op }) => op === 'patch')) requireScope(claimsOf(request), 'docs:read');
      try {
        const results = await batches.run(project, operations, commitOptions(request));
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
      ? 'the document exists already'
      : 'the document is at another revision';
  return { path, message, etag: etagOf(rev) };
}
