import type { FastifyInstance } from 'fastify';
import { AppError } from '../contract/app-error.ts';
import type { Clock } from '../runtime/clock.ts';

/** Concurrent answers of the documentation. They are large and need no token. */
export const DOCS_CONCURRENT_MAX = 32;
/** Answers of the documentation per {@link WINDOW_MS}: a page needs eight. */
export const DOCS_PER_WINDOW_MAX = 200;
const WINDOW_MS = 1_000;

/**
 * Bounds requests without a token to the routes of `app`: 503 `overloaded` while too many answers are still
 * being sent, and 429 `rate_limited` for too many requests per second. Only these routes are affected, not
 * requests for documents and keys.
 */
export function boundDocs(app: FastifyInstance, clock: Clock): void {
  let running = 0;
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
    if (running >= DOCS_CONCURRENT_MAX) {
      done(new AppError('overloaded'));
      return;
    }
    inWindow++;
    running++;
    reply.raw.once('close', () => running--);
    done();
  });
}
