import type { FastifyInstance } from 'fastify';
import { AppError } from '../contract/app-error.ts';
import type { Clock } from '../runtime/clock.ts';

/** Answers of the documentation under way at a time: they are large and asked for without a token. */
export const DOCS_UNDER_WAY_MAX = 32;
/** Answers of the documentation in {@link WINDOW_MS}: a page takes eight. */
export const DOCS_PER_WINDOW_MAX = 200;
const WINDOW_MS = 1_000;

/**
 * Bounds what strangers may ask of the routes of `app`: 503 `overloaded` while too many of their answers have
 * not been taken, 429 `rate_limited` when they come too fast. Both concern these routes alone: requests
 * for documents and keys are not held up.
 */
export function boundDocs(app: FastifyInstance, clock: Clock): void {
  let underWay = 0;
  let windowFromMs = Number.NEGATIVE_INFINITY;
  let inWindow = 0;
  app.addHook('onRequest', (_request, reply, done) => {
    const nowMs = clock.monotonic();
    if (nowMs - windowFromMs >= WINDOW_MS) {
      windowFromMs = nowMs;
      inWindow = 0;
    }
    if (inWindow >= DOCS_PER_WINDOW_MAX) {
      done(new AppError('rate_limited', { retryAfterS: 1 }));
      return;
    }
    if (underWay >= DOCS_UNDER_WAY_MAX) {
      done(new AppError('overloaded'));
      return;
    }
    inWindow++;
    underWay++;
    reply.raw.once('close', () => underWay--);
    done();
  });
}
