import { AppError } from '@bundoc/shared/contract/app-error';
import { claimsOf } from '@bundoc/shared/http/guard';
import { shareKeyOf } from '@bundoc/shared/shares/share-key';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Scheduler, Work, WorkKind } from '../work/scheduler.ts';
import { guardedProject } from './access.ts';

/** Long work of a request that a guard let pass. It ends when the client has gone, if `reply` is given. */
export function requestWork(
  scheduler: Scheduler,
  kind: WorkKind,
  request: FastifyRequest,
  reply?: FastifyReply,
): Work {
  const key = shareKeyOf(claimsOf(request), guardedProject(request));
  return scheduler.work(key, kind, reply && gone(reply));
}

/** Aborts when the client has gone before it was answered. */
function gone(reply: FastifyReply): AbortSignal {
  const controller = new AbortController();
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) controller.abort(new AppError('request_timeout'));
  });
  return controller.signal;
}
