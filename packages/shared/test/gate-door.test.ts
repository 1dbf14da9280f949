import { Registry } from '@prometheus-io/client';
import type { FastifyInstance } from 'fastify';

import { describe, expect, it } from 'vitest';
import { Pool } from '../src/admission/pool.ts';
import { answerByHand, HOLDS_MANY, placesOfRequest } from '../src/http/gate-door.ts';
import { registerMetricsRoute } from '../src/http/service-routes.ts';
import { PUBLIC } from '../src/openapi/description.ts';
import { systemClock } from '../src/runtime/clock.ts';
import { away } from '../src/shares/share-key.ts';
import { begun, OTHER, sharesOf, startWith, useBufferBudgets } from './buffering-server.ts';
import { openRaw, readAnswer, sendRaw } from './raw-http.ts';
import { expectProblem, get } from './started-server.ts';

useBufferBudgets();

/** A server with so few places that a test can take them all. */
function startWithPlaces(routes: (app: FastifyInstance) => void = () => undefined, waitMs = 5_000) {
  const shares = sharesOf({ capacity: 1_000_000 });
  const { accounts } = shares.gate;
  const places = new Pool({ name: 'places', capacity: 8, waitMs, clock: systemClock, accounts });
  return { places, start: () => startWith({ ...shares, gate: { ...shares.gate, places } }, routes), shares };
}

const as = (path: string, subject = 'own') => get(path, `Subject: ${subject}\r\n`);

describe('a request', () => {
  it('has places from when its body is complete until its answer is ready', async () => {
    const seen: number[] = [];
    const { places, start, shares } = startWithPlaces((app) => {
      app.addHook('preHandler', async () => void seen.push(places.held));
      app.addHook('onResponse', async () => void seen.push(places.held));
    });
    await using server = await start();
    const socket = await begun(server, shares, 60_000, 30_000);
    expect(places.held).toBe(0);
    socket.write('x'.repeat(30_000));
    expect((await readAnswer(socket)).status).toBe(200);
    await expect.poll(() => seen).toEqual([1, 0]);
  });

  it('a request for many documents has eight places, and so has one that asks for fields', async () => {
    const seen: number[] = [];
    const { places, start } = startWithPlaces((app) => {
      const count = async () => void seen.push(places.held);
      app.get('/many', { config: HOLDS_MANY }, count);
      app.get('/one', count);
    });
    await using server = await start();
    for (const path of ['/many', '/one?fields=a', '/one']) await sendRaw(server.port, as(path));
    expect(seen).toEqual([8, 8, 1]);
  });

  it('waits while there are no places, and is refused with the number that its subject holds', async () => {
    const { places, start } = startWithPlaces(undefined, 20);
    await using server = await start();
    {
      using _all = places.charge({ subject: 'own', project: 'p' }, 8);
      const { detail } = expectProblem(await sendRaw(server.port, as('/items/a')), 'rate_limited');
      expect(detail).toBe('your share of places is in use: 8 of 8, 8 of them by this project');
    }
    using _all = places.charge(OTHER, 8);
    const { detail } = expectProblem(await sendRaw(server.port, as('/items/a')), 'overloaded');
    expect(detail).toBe('the service has no places to spare');
    expect((await sendRaw(server.port, get('/items/a'))).status).toBe(200);
  });

  it('leaves the gate when its client disconnects', async () => {
    const { places, start } = startWithPlaces();
    await using server = await start();
    using _all = places.charge(OTHER, 8);
    const socket = openRaw(server.port);
    socket.write(as('/items/a'));
    await expect.poll(() => places.waiting).toBe(1);
    socket.destroy();
    await expect.poll(() => places.waiting).toBe(0);
    expect([places.refusals, places.subjects]).toEqual([{ rate_limited: 0, overloaded: 0 }, 1]);
  });

  it('has no places while it is away, and waits for places again afterwards', async () => {
    const back = Promise.withResolvers<void>();
    let waiting = 0;
    const wait = () => {
      waiting++;
      return back.promise.then(() => undefined);
    };
    const { places, start } = startWithPlaces((app) => {
      app.get('/away', async () => {
        await away(wait);
        return places.held;
      });
      app.get('/poll', async (request) => {
        const own = placesOfRequest(request);
        own?.leave();
        await wait();
        await own?.enter();
        return places.held;
      });
    });
    await using server = await start();
    const answers = ['/away', '/poll'].map((path) => sendRaw(server.port, as(path)));
    await expect.poll(() => waiting).toBe(2);
    expect(places.held).toBe(0);
    const all = places.charge(OTHER, 8 * places.capacity);
    // What others hold in its subject's part keeps a single request out.
    const own = places.charge({ subject: 'a', project: 'p' }, 8 * places.capacity);
    back.resolve();
    await expect.poll(() => places.waiting).toBe(2);
    for (const hold of [all, own]) hold[Symbol.dispose]();
    const bodies = (await Promise.all(answers)).map(({ body }) => Number(body));
    expect(Math.min(...bodies)).toBeGreaterThan(0);
    await expect.poll(() => places.held).toBe(0);
  });

  it('a request that is answered by hand gives its places back, even if it disconnects later', async () => {
    const { places, start } = startWithPlaces((app) => {
      app.get('/stream', async (request, reply) => {
        answerByHand(request, reply).raw.writeHead(200).write('begun');
        return reply;
      });
    });
    await using server = await start();
    const socket = openRaw(server.port);
    socket.write(as('/stream'));
    await expect.poll(() => String(socket.read() ?? '')).toContain('begun');
    expect([places.held, places.subjects]).toEqual([0, 0]);
    socket.destroy();
  });
});

describe('the metrics', () => {
  it('pass a full gate', async () => {
    const { places, start } = startWithPlaces((app) => {
      registerMetricsRoute(app, new Registry(), { access: PUBLIC });
    });
    await using server = await start();
    using _all = places.charge(OTHER, 8);
    expect((await sendRaw(server.port, as('/metrics'))).status).toBe(200);
    expect(places.waiting).toBe(0);
  });
});
