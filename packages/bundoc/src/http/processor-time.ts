import type { RateLimit } from '@bundoc/shared/runtime/rate-limit';
import type { FastifyInstance } from 'fastify';
import { guardedProject } from './access.ts';

/** What a request counts for in any case: about what a small one takes, milliseconds. */
const REQUEST_MS = 0.1;
/** After a pause, this many seconds' worth may come at once. */
export const BURST_S = 5;

/**
 * Bounds the processor time that requests of one project take: 429 `rate_limited`, once the guard has let the
 * request pass, and before its body is read or anything is looked up. So nobody uses up what others may ask
 * of a project that is not theirs, and a refusal says nothing of what exists.
 *
 * To be called before any route is registered.
 *
 * @param limit counts milliseconds; also those of long work, which are charged as it goes on.
 * @param onRefused hears of each request that is refused.
 */
export function limitProcessorTime(app: FastifyInstance, limit: RateLimit, onRefused: () => void): void {
  // After every `onRequest` hook, those of the routes included.
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
