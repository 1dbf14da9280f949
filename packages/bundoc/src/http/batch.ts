import { AppError } from '@bundoc/shared/contract/app-error';
import type { BatchAnswer } from '@bundoc/shared/contract/batch';
import { requireScope } from '@bundoc/shared/contract/grants';
import type { FieldFault } from '@bundoc/shared/contract/problem';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { HOLDS_MANY } from '@bundoc/shared/http/gate-door';
import { claimsOf } from '@bundoc/shared/http/guard';
import type { FastifyInstance } from 'fastify';
import { readBatchInTurns } from '../documents/large-content.ts';
import type { BatchOperation } from '../documents/operation.ts';
import { ifMatchOfBody } from '../documents/precondition-headers.ts';
import type { BatchLimits } from '../documents/read-batch.ts';
import type { WriteResult } from '../engine/port/port.ts';
import { type FailedWrite, PreconditionsFailed } from '../engine/port/precondition.ts';
import { RefusedWrite } from '../engine/port/refused-write.ts';
import type { Batches } from '../service/batches.ts';
import type { Scheduler } from '../work/scheduler.ts';
import { guardProject, projectPath } from './access.ts';
import { DESCRIPTION } from './batch.openapi.ts';
import { bodyOf } from './body.ts';
import { preconditionFault } from './failed-precondition.ts';
import { commitOptions } from './idempotency.ts';
import { requestWork } from './request-work.ts';

const BATCH_PATH = '/v1/projects/:project/batch';

export interface BatchRouteLimits extends BatchLimits {
  /** Maximum bytes of a batch. */
  readonly batchBytesMax: number;
}

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
        if (error instanceof RefusedWrite) throw inBatch(error);
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

/** Names the operation. The places in `errors` stay those of its document. */
function inBatch(refused: RefusedWrite): AppError {
  const { code, index, errors, detail } = refused;
  const place = `body.operations.${index}`;
  return new AppError(code, {
    errors,
    detail: detail === undefined ? place : `${place}: ${detail}`,
    cause: refused,
  });
}

function faultOf(operation: BatchOperation | undefined, { index, rev }: FailedWrite): FieldFault {
  return preconditionFault(`body.operations.${index}`, operation?.precondition.kind === 'absent', rev);
}
