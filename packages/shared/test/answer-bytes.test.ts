import { once } from 'node:events';
import type { Socket } from 'node:net';
import { Gauge, Registry } from '@prometheus-io/client';
import type { FastifyInstance } from 'fastify';
import { describe, expect, it, vi } from 'vitest';
import type { Pool } from '../src/admission/pool.ts';
import { freeOnceSent, READ } from '../src/http/answer-bytes.ts';
import { PACE_MIN } from '../src/http/cut-offs.ts';
import { registerMetricsRoute } from '../src/http/service-routes.ts';
import { PUBLIC } from '../src/openapi/description.ts';
import { OTHER, sharesOf, sockets, startWith, useBufferBudgets } from './buffering-server.ts';
import { openRaw, sendRaw } from './raw-http.ts';
import { expectProblem, get, JSON_TYPE, post, type Running } from './started-server.ts';

useBufferBudgets();

describe('answers', () => {
  const BIG = 24_000_000;

  /** Starts clients that request a large answer and read nothing. Resolves once the answers are held. */
  async function greedyReaders(server: Running, share: Pool, count: number): Promise<Socket[]> {
    const before = share.held;
    const greedy = Array.from({ length: count }, () => openRaw(server.port));
    for (const socket of greedy) {
      sockets.push(socket);
      socket.on('error', () => undefined);
      socket.pause();
      socket.write(get('/big', 'Subject: greedy\r\n').replace('Connection: close\r\n', ''));
    }
    await expect.poll(() => share.held).toBe(before + count * BIG);
    return greedy;
  }

  /** A greedy reader, with the server's side of its connection. */
  async function acceptedReader(server: Running, share: Pool): Promise<[Socket, Socket]> {
    const accepted = once(server.app.server, 'connection') as Promise<[Socket]>;
    const [client] = await greedyReaders(server, share, 1);
    if (client === undefined) throw new Error('there is no reader');
    return [(await accepted)[0], client];
  }

  /** Bytes of the server's answer that the system has not accepted. */
  function unsentBytes(socket: Socket): number {
    return (socket as Socket & { _handle?: { writeQueueSize: number } | null })._handle?.writeQueueSize ?? 0;
  }

  async function read(socket: Socket, bytes: number): Promise<void> {
    for (let left = bytes; left > 0; ) {
      const next = once(socket, 'data') as Promise<[Buffer]>;
      socket.resume();
      left -= (await next)[0].length;
      socket.pause();
    }
  }

  const big = (app: FastifyInstance) => app.get('/big', async () => 'x'.repeat(BIG));

  it('are limited while clients do not receive them: further reads are refused until some are received or abandoned', async () => {
    const shares = sharesOf({ capacity: 3 * BIG, waitMs: 20 });
    await using server = await startWith(shares, big);
    const greedy = await greedyReaders(server, shares.gate.bytes, 3);
    const refused = await sendRaw(server.port, get('/big', 'Subject: greedy\r\n'));
    expect(expectProblem(refused, 'rate_limited').detail).toMatch(
      /^your share of bytes is in use: 72000000 of 72000000/,
    );
    expectProblem(await sendRaw(server.port, get('/big', 'Subject: other\r\n')), 'overloaded');
    expect((await sendRaw(server.port, get('/items/a'))).status).toBe(200);
    for (const socket of greedy) socket.destroy();
    for (let round = 0; round < 5; round++)
      expect((await sendRaw(server.port, get('/big'))).body).toHaveLength(BIG);
    await expect.poll(() => [shares.gate.bytes.held, shares.gate.bytes.subjects]).toEqual([0, 0]);
  });

  it('answers with metrics are sent one at a time to each caller, even when others hold all bytes', async () => {
    // The greedy reader is not cut off.
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const registry = new Registry();
    new Gauge({ name: 'long', help: 'x'.repeat(100_000), registers: [registry] });
    const shares = sharesOf({ capacity: BIG, waitMs: 20 });
    await using server = await startWith(shares, (app) => {
      big(app);
      registerMetricsRoute(app, registry, { access: PUBLIC });
    });
    await greedyReaders(server, shares.gate.bytes, 1);
    expectProblem(await sendRaw(server.port, get('/big', 'Subject: other\r\n')), 'overloaded');
    expectProblem(await sendRaw(server.port, get('/metrics', 'Subject: greedy\r\n')), 'rate_limited');
    const counted = vi.spyOn(shares.gate.bytes, 'charge');
    expect((await sendRaw(server.port, get('/metrics'))).body).toContain('# TYPE long gauge');
    expect(counted).toHaveBeenCalledOnce();
    await expect.poll(() => shares.gate.bytes.held).toBe(BIG);
  });

  it('release everything on a connection that carries many of them', async () => {
    const shares = sharesOf({ capacity: 1_000_000 });
    await using server = await startWith(shares, (app) => {
      app.get('/page', async () => 'x'.repeat(100_000));
    });
    const accepted = once(server.app.server, 'connection') as Promise<[Socket]>;
    const socket = openRaw(server.port);
    sockets.push(socket);
    const [peer] = await accepted;
    const before = peer.listenerCount('close');
    const page = get('/page').replace('Connection: close\r\n', '');
    for (let n = 0; n < 20; n++) {
      socket.write(page);
      await read(socket, 100_000);
      await expect.poll(() => shares.gate.bytes.held).toBe(0);
    }
    expect(peer.listenerCount('close')).toBeLessThanOrEqual(before + 2);
  });

  it('answers that are refused return the memory of their buffers at once', async () => {
    const made: Buffer[] = [];
    const shares = sharesOf({ capacity: BIG, waitMs: 20 });
    await using server = await startWith(shares, (app) => {
      big(app);
      app.get('/own', async (request) => {
        const own = Buffer.alloc(BIG);
        made.push(own);
        return freeOnceSent(request, own);
      });
    });
    await greedyReaders(server, shares.gate.bytes, 1);
    expectProblem(await sendRaw(server.port, get('/own', 'Subject: other\r\n')), 'overloaded');
    expect(made.map(({ length }) => length)).toEqual([0]);
  });

  it('answers to writes are never refused, even without room', async () => {
    const shares = sharesOf({ capacity: 2 * BIG, waitMs: 20 });
    await using server = await startWith(shares, (app) => {
      big(app);
      app.post('/writes', async () => 'x'.repeat(BIG));
      app.post('/reads', { config: READ }, async () => 'x'.repeat(BIG));
    });
    const send = (path: string) => sendRaw(server.port, post('', `${JSON_TYPE}Subject: other\r\n`, path));
    const greedy = await greedyReaders(server, shares.gate.bytes, 2);
    expectProblem(await send('/reads'), 'overloaded');
    expect((await send('/writes')).body).toHaveLength(BIG);
    for (const socket of greedy) socket.destroy();
    await expect.poll(() => shares.gate.bytes.held).toBe(0);
  });

  it('only answers that are read too slowly are cut off, while more than half of the bytes are held', async () => {
    // Only the test advances the seconds.
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const shares = sharesOf({ capacity: 3 * BIG });
    await using server = await startWith(shares, big);
    const { bytes } = shares.gate;
    const [stalled] = await acceptedReader(server, shares.gate.bytes);
    const [reading, client] = await acceptedReader(server, shares.gate.bytes);
    // More than half of the room is in use even without the first one.
    using _rest = shares.gate.bytes.charge(OTHER, BIG);
    // Its answers exceed whatever the sockets buffer.
    let asked = 1;
    while (bytes.cuts === 0) {
      // Nobody reads the first one. The other is read faster than the minimum pace.
      const before = unsentBytes(reading);
      while (Math.abs(unsentBytes(reading) - before) < 10 * PACE_MIN) {
        if (client.bytesRead > asked * BIG) {
          asked++;
          client.write(get('/big', 'Subject: greedy\r\n').replace('Connection: close\r\n', ''));
        }
        await read(client, 1);
      }
      shares.cutOffs.sweep();
    }
    for (let second = 0; second < 3; second++) shares.cutOffs.sweep();
    expect([bytes.cuts, stalled.destroyed, reading.destroyed]).toEqual([1, true, false]);
    // Both have given their bytes back; the rest has its own.
    client.destroy();
    await expect.poll(() => shares.gate.bytes.held).toBe(BIG);
  });
});
