import type { FastifyReply } from 'fastify';
import { AppError } from '../contract/app-error.ts';

const PROBE_EVERY_MS = 250;

const SIGNAL = Symbol('signal');

declare module 'fastify' {
  interface FastifyReply {
    [SIGNAL]?: AbortSignal;
  }
}

/** Aborts when the client disconnects before it was answered. */
export function disconnectSignal(reply: FastifyReply): AbortSignal {
  reply[SIGNAL] ??= watch(reply);
  return reply[SIGNAL];
}

function watch(reply: FastifyReply): AbortSignal {
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

/**
 * A client that has closed its half of the connection may still wait for the answer, or may be gone. Interim
 * responses (RFC 9110, section 15.2) show which: the system of a gone client answers the first with a reset,
 * and the next one fails. HTTP/1.0 has no interim responses.
 */
function probeClient({ raw, request }: FastifyReply): void {
  if (!raw.headersSent && request.raw.httpVersionMinor > 0) raw.writeProcessing();
}
