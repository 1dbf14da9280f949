import type { AddressInfo } from 'node:net';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { createHttpShares } from '@bundoc/shared/http/http-shares';
import { listen } from '@bundoc/shared/http/listen';
import { createHttpServer, STALLED_TIMEOUT_MS } from '@bundoc/shared/http/server';
import { createLogger } from '@bundoc/shared/logs/logger';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { expect, it } from 'vitest';
import { ChangeFeed, HEARTBEAT_MS } from '../service/change-feed.ts';
import { Scheduler } from '../work/scheduler.ts';
import { createServiceShares } from '../work/service-shares.ts';
import { WAIT_S_MAX } from './changes.openapi.ts';
import { registerChanges } from './changes.ts';

it("nothing that waits for changes is silent for as long as its connection's idle timeout", () => {
  expect(WAIT_S_MAX * 1_000).toBeLessThan(STALLED_TIMEOUT_MS - 5_000);
  expect(HEARTBEAT_MS).toBeLessThan(STALLED_TIMEOUT_MS / 2);
});

it('a stream, or a page that is waited for, has no places at the gate while it waits', async () => {
  const shares = createHttpShares();
  const { places } = shares.gate;
  const logger = createLogger({ service: 'bundoc', level: 'silent' });
  const heldInReads: number[] = [];
  const waits: ((isChanged: boolean) => void)[] = [];
  const store = {
    position: async () => 7,
    changes: async (position: number) => {
      heldInReads.push(places.held);
      return { changes: [], position, horizon: 0 };
    },
  };
  const scheduler = new Scheduler();
  const feed = new ChangeFeed({
    clock: systemClock,
    logger,
    scheduler,
    instances: {
      acquire: (async () => ({ store, [Symbol.dispose]: () => undefined })) as never,
      waitForChange: (_project, _after, signal) => {
        const { promise, resolve } = Promise.withResolvers<boolean>();
        waits.push(resolve);
        signal.addEventListener('abort', () => resolve(false));
        return promise;
      },
    },
  });
  const claims = { jti: 's', projects: ['*'], scope: ['docs:read'] };
  const auth = { authenticate: () => claims } as unknown as BearerAuth;
  await using app = createHttpServer({ logger, shares, bodyBytesMax: 1_000 });
  registerChanges(app, feed, auth, createServiceShares().streamBytes, scheduler);
  await listen(app, { port: 0, host: '127.0.0.1', prefix: '' });
  const { port } = app.server.address() as AddressInfo;
  const ask = (query: string, accept: string) =>
    fetch(`http://127.0.0.1:${port}/v1/projects/p/changes${query}`, { headers: { accept } });

  const page = ask('?since=now&wait=50', 'application/json');
  await expect.poll(() => [waits.length, places.held]).toEqual([1, 0]);
  waits[0]?.(true);
  await expect.poll(() => [waits.length, places.held]).toEqual([2, 0]);
  expect(heldInReads).toEqual([8, 8]);
  const stream = await ask('?since=now', 'text/event-stream');
  await expect.poll(() => [waits.length, places.held]).toEqual([3, 0]);
  feed.close();
  expect([(await page).status, stream.status]).toEqual([200, 200]);
  await stream.text();
});
