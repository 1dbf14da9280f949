import type { Clock } from '@bundoc/shared/clock';
import { RateLimit } from '@bundoc/shared/rate-limit';
import type { FastifyInstance } from 'fastify';
import { guardedProject } from './access.ts';

export interface ProjectRateOptions {
  readonly clock: Clock;
  /** Requests a second of one project, whoever asks; more than 0. */
  readonly perSecond: number;
  /** Told of each request that is refused. */
  readonly onRefused: () => void;
}

/** After a pause, this many seconds' worth may come at once. */
const BURST_S = 5;

/**
 * Bounds how often this process is asked of one project: 429 `rate_limited`, once the guard has let the request pass, and before its body
 * is read or anything is looked up. So nobody uses up what others may ask of a project that is not theirs, and a refusal says nothing
 * of what exists.
 *
 * To be called before any route is registered.
 */
export function limitProjectRate(
  app: FastifyInstance,
  { clock, perSecond, onRefused }: ProjectRateOptions,
): void {
  const limit = new RateLimit({ clock, perSecond, burst: perSecond * BURST_S });
  // After every `onRequest` hook, those of the routes included.
  app.addHook('preParsing', (request, _reply, payload, done) => {
    const project = guardedProject(request);
    try {
      if (project !== undefined) limit.take(project);
    } catch (error) {
      onRefused();
      done(error as Error);
      return;
    }
    done(null, payload);
  });
}
