import { disconnectSignal } from '@bundoc/shared/http/disconnect-signal';
import { shareOfRequest } from '@bundoc/shared/http/guard';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Scheduler } from '../work/scheduler.ts';
import type { Work, WorkKind } from '../work/work.ts';

/** The long work of an authorized request. With `reply`, it ends when the client disconnects. */
export function requestWork(
  scheduler: Scheduler,
  kind: WorkKind,
  request: FastifyRequest,
  reply?: FastifyReply,
): Work {
  return scheduler.work(shareOfRequest(request), kind, reply && disconnectSignal(reply));
}
