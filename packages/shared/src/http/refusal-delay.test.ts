import { once } from 'node:events';
import { connect } from 'node:net';
import { expect, it, vi } from 'vitest';
import { AppError } from '../contract/app-error.ts';
import { createLogger } from '../logs/logger.ts';
import { FakeClock } from '../testing/fake-clock.ts';
import { REFUSALS_PER_SECOND, RefusalDelay } from './refusal-delay.ts';
import { createHttpServer } from './server.ts';

it('only a refusal of a request beyond its share is delayed, which slows down immediate retries', async () => {
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

it('an address (IPv6: a /64) has a limit of refusals without delay a second, which affects no other address', () => {
  const clock = new FakeClock();
  const delay = new RefusalDelay(clock, 0);
  const atOnce = (address: string, count: number) =>
    Array.from({ length: count }, () => delay.of('unauthenticated', address)).filter(
      (wait) => wait === undefined,
    ).length;
  expect(atOnce('192.0.2.1', 2 * REFUSALS_PER_SECOND)).toBe(REFUSALS_PER_SECOND);
  expect([delay.of(undefined, '192.0.2.1'), atOnce('192.0.2.2', 1)]).toEqual([expect.any(Promise), 1]);
  expect(atOnce('2001:db8::1', 40) + atOnce('2001:db8::2', 40)).toBe(REFUSALS_PER_SECOND);
  clock.advance(500);
  expect(atOnce('192.0.2.1', REFUSALS_PER_SECOND)).toBe(REFUSALS_PER_SECOND / 2);
});

it('the answer of an allowed request never waits', () => {
  const delay = new RefusalDelay(new FakeClock(), 0);
  const waits = Array.from({ length: 200 }, () => delay.of('document_not_found', '192.0.2.1'));
  expect(new Set(waits)).toEqual(new Set([undefined]));
});

it('a flood of bytes that are not HTTP is answered with the same delay', async () => {
  await using app = createHttpServer({
    logger: createLogger({ service: 'bundoc', level: 'silent' }),
    bodyBytesMax: 1_000,
  });
  const { port } = new URL(await app.listen({ host: '127.0.0.1', port: 0 }));
  const wait = Promise.withResolvers<void>();
  const of = vi.spyOn(RefusalDelay.prototype, 'of').mockReturnValue(wait.promise);
  const socket = connect(Number(port), '127.0.0.1');
  let text = '';
  socket.on('data', (bytes) => {
    text += bytes;
  });
  socket.write('GARBAGE\r\n\r\n');
  await expect.poll(() => of.mock.calls).toEqual([[undefined, '127.0.0.1']]);
  expect(text).toBe('');
  wait.resolve();
  await once(socket, 'close');
  expect(text).toMatch(/^HTTP\/1\.1 400 /);
});
