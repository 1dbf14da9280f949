import { expect, it } from 'vitest';
import { AppError } from '../contract/app-error.ts';
import { createLogger } from '../runtime/logger.ts';
import { createHttpServer } from './server.ts';

it('a refusal of a request beyond its share is delayed, which slows down immediate retries; no other answer is', async () => {
  const DELAY_MS = 300;
  await using app = createHttpServer({
    logger: createLogger({ service: 'bundoc', level: 'silent' }),
    bodyBytesMax: 1_000,
    refusalDelayMs: DELAY_MS,
  });
  app.get('/refused', () => {
    throw new AppError('rate_limited');
  });
  app.get('/absent', () => {
    throw new AppError('not_found');
  });
  app.get('/there', async () => ({}));
  const order: number[] = [];
  const get = async (url: string) => order.push((await app.inject(url)).statusCode);
  const beganMs = performance.now();
  await Promise.all(['/refused', '/absent', '/there'].map(get));
  expect(order.at(-1)).toBe(429);
  expect(order.toSorted()).toEqual([200, 404, 429]);
  expect(performance.now() - beganMs).toBeGreaterThan(DELAY_MS - 50);
});
