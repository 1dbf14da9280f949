import { AppError } from '@bundoc/shared/contract/app-error';
import { shareOfRequest } from '@bundoc/shared/http/request-share';
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

/** Aborts when the client disconnects before it was answered. */
function disconnectSignal(reply: FastifyReply): AbortSignal {
  const controller = new AbortController();
  const { raw, request } = reply;
  const { socket } = request.raw;
  // It may have closed during authorization.
  if (raw.destroyed) {
    controller.abort(new AppError('request_timeout'));
    return controller.signal;
  }
  let timer: NodeJS.Timeout | undefined;
  const probe = () => {
    probeClient(reply);
    timer = setInterval(probeClient, PROBE_EVERY_MS, reply);
  };
  raw.once('close', () => {
    clearInterval(timer);
    socket.off('end', probe);
    if (!raw.writableFinished) controller.abort(new AppError('request_timeout'));
  });
  if (socket.readableEnded) probe();
  else socket.once('end', probe);
  return controller.signal;
}

const PROBE_EVERY_MS = 250;

/**
 * A client that has closed its half of the connection may still wait for the answer, or may be gone. Interim
 * responses (RFC 9110, section 15.2) show which: the system of a gone client answers the first with a reset,
 * and the next one fails. HTTP/1.0 has no interim responses.
 */
function probeClient({ raw, request }: FastifyReply): void {
  if (!raw.headersSent && request.raw.httpVersionMinor > 0) raw.writeProcessing();
}
