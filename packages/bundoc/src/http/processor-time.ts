import type { RateLimit } from '@bundoc/shared/runtime/rate-limit';
import type { FastifyInstance } from 'fastify';
import { guardedProject } from './access.ts';

/** Minimum cost of a request, milliseconds: about what a small one takes. */
const REQUEST_MS = 0.1;
/** Seconds' worth of time that may be used at once after a pause. */
export const BURST_S = 5;

/**
 * Limits the processor time that requests of one project use: 429 `rate_limited`. The check follows the
 * guard, before the body is read or anything is looked up. So only authorized callers can use up a project's
 * time, and a refusal does not reveal what exists.
 *
 * Call it before any route is registered.
 *
 * @param limit counts milliseconds, including those of long work while it runs.
 * @param onRefused called for each refused request.
 */
export function limitProcessorTime(app: FastifyInstance, limit: RateLimit, onRefused: () => void): void {
  // After every `onRequest` hook, including those of the routes.
  app.addHook('preParsing', (request, _reply, payload, done) => {
    const project = guardedProject(request);
    try {
      if (project !== undefined) limit.take(project, REQUEST_MS);
    } catch (error) {
      onRefused();
      done(error as Error);
      return;
    }
    done(null, payload);
  });
}
