import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { setImmediate } from 'node:timers/promises';
import type { FastifyInstance } from 'fastify';
import { describe, expect, it, vi } from 'vitest';
import { createHttpShares } from '../src/http/http-shares.ts';
import { FakeClock } from '../src/testing/fake-clock.ts';
import {
  BODY_BYTES_MAX,
  begun,
  headOf,
  OTHER,
  sharesOf,
  startWith,
  useBufferBudgets,
} from './buffering-server.ts';
import { openRaw, readAnswer, sendRaw } from './raw-http.ts';
import { expectProblem, get, JSON_TYPE, type Running } from './started-server.ts';

useBufferBudgets();

const SMALL = { extra: 125_000, smallMax: 65_536 };
/** After which others must make room for a waiting request. */
const MAKE_ROOM_AFTER_MS = 2_000;

/** A body that is sent at once. */
const whole = (server: Running, bytes: number, subject: string) =>
  sendRaw(server.port, headOf(bytes, subject) + 'x'.repeat(bytes));

describe('bodies', () => {
  it('hold their announced length until they are answered', async () => {
    const shares = sharesOf({ capacity: 20_000_000 });
    const { bytes } = shares.gate;
    await using server = await startWith(shares);
    const socket = await begun(server, shares, BODY_BYTES_MAX, 1);
    expect(bytes.held).toBe(BODY_BYTES_MAX);
    socket.destroy();
    await expect.poll(() => bytes.held).toBe(0);
    expect((await whole(server, 900_000, 'other')).status).toBe(200);
    await expect.poll(() => [bytes.held, bytes.subjects]).toEqual([0, 0]);
  });

  it('small bodies have further bytes while large ones hold all', async () => {
    const shares = sharesOf({ capacity: 1_000_000, ...SMALL });
    await using server = await startWith(shares);
    using _all = shares.gate.bytes.charge(OTHER, 1_000_000);
    for (const bytes of [1, 20_000, 65_536]) expect((await whole(server, bytes, 'small')).status).toBe(200);
  });

  it('bodies without room are not read, and are refused before anything begins', async () => {
    const shares = sharesOf({ capacity: 1_000_000, waitMs: 20 });
    let isBegun = false;
    await using server = await startWith(shares, (app) => {
      app.addHook('preHandler', async () => {
        isBegun = true;
      });
    });
    for (const [holder, code, detail] of [
      ['other', 'overloaded', 'the service has no bytes to spare'],
      [
        'own',
        'rate_limited',
        'your share of bytes is in use: 1000000 of 1000000, 1000000 of them by this project',
      ],
    ] as const) {
      using _all = shares.gate.bytes.charge({ subject: holder, project: 'p' }, 1_000_000);
      const answer = await sendRaw(server.port, headOf(60_000, 'own') + 'x'.repeat(30_000));
      expect(expectProblem(answer, code).detail).toBe(detail);
      expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0);
      expect(answer.headers['connection']).toBe('close');
    }
    const { held, waiting } = shares.gate.bytes;
    expect([isBegun, held, waiting]).toEqual([false, 0, 0]);
  });

  it('are read once there is room', async () => {
    const shares = sharesOf({ capacity: 1_000_000 });
    await using server = await startWith(shares);
    const all = shares.gate.bytes.charge(OTHER, 1_000_000);
    const socket = await begun(server, shares, 60_000, 60_000);
    expect(shares.gate.bytes.waiting).toBe(1);
    all[Symbol.dispose]();
    expect(JSON.parse((await readAnswer(socket)).body)).toEqual({ bytes: 60_000 });
  });

  it('bodies of a subject with less than its part are read even when a stalled subject holds all bytes', async () => {
    const shares = sharesOf({ capacity: 1_000_000, beyond: { ofSubject: 1.25, ofProject: 1.25 } });
    await using server = await startWith(shares);
    for (let n = 0; n < 5; n++) await begun(server, shares, 200_000, 1);
    expect((await whole(server, 100_000, 'other')).status).toBe(200);
    const more = await begun(server, shares, 100_000, 100_000);
    expect(shares.gate.bytes.waiting).toBe(1);
    more.destroy();
  });

  it('bodies that arrive too slowly are refused while more than half of the bytes are held, the slowest first', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const shares = sharesOf({ capacity: 1_000_000 });
    await using server = await startWith(shares);
    const incoming: Socket[] = [];
    server.app.server.on('request', ({ socket }) => incoming.push(socket));
    const slowest = await begun(server, shares, 200_000, 1);
    const slow = await begun(server, shares, 200_000, 1);
    const fast = await begun(server, shares, 200_000, 1);
    const { cutOffs } = shares;
    await expect.poll(() => shares.gate.bytes.held).toBe(600_000);
    // Less than 16 KiB in each of five seconds, but for the fast one.
    slowest.write('x'.repeat(1_000));
    slow.write('x'.repeat(40_000));
    fast.write('x'.repeat(150_000));
    await expect
      .poll(() => incoming.reduce((sum, { bytesRead }) => sum + bytesRead, 0))
      .toBeGreaterThan(191_000);
    for (let second = 0; second < 5; second++) cutOffs.sweep();
    expectProblem(await readAnswer(slowest), 'request_timeout');
    expect([shares.gate.bytes.cuts, shares.gate.bytes.held]).toEqual([1, 400_000]);
    slow.write('x'.repeat(159_999));
    fast.write('x'.repeat(49_999));
    for (const socket of [slow, fast]) expect((await readAnswer(socket)).status).toBe(200);
    await expect.poll(() => shares.gate.bytes.held).toBe(0);
  });

  it('bodies of the subject that holds most are refused at any pace when another subject waits', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const clock = new FakeClock();
    const shares = sharesOf({ capacity: 1_000_000, clock });
    const { bytes } = shares.gate;
    await using server = await startWith(shares);
    const { cutOffs } = shares;
    for (let n = 0; n < 3; n++) await begun(server, shares, 330_000, 250_000, 'greedy');
    const modest = await begun(server, shares, 300_000, 300_000, 'modest');
    expect(bytes.waiting).toBe(1);
    cutOffs.sweep();
    expect([bytes.cuts, bytes.waiting]).toEqual([0, 1]);
    clock.advance(MAKE_ROOM_AFTER_MS);
    cutOffs.sweep();
    expect([bytes.cuts, bytes.waiting]).toEqual([1, 0]);
    expect(JSON.parse((await readAnswer(modest)).body)).toEqual({ bytes: 300_000 });
  });

  it('bodies that arrive slowly are read while there is room', async () => {
    const shares = sharesOf({ capacity: 1_000_000 });
    await using server = await startWith(shares);
    const socket = await begun(server, shares, 400_000, 1_000);
    for (let second = 0; second < 60; second++) shares.cutOffs.sweep();
    socket.write('x'.repeat(399_000));
    expect((await readAnswer(socket)).status).toBe(200);
  });

  it('release their bytes at once when their clients disconnect, even while they wait', async () => {
    const shares = sharesOf({ capacity: 500_000 });
    const { bytes } = shares.gate;
    await using server = await startWith(shares);
    using _most = bytes.charge(OTHER, 400_000);
    const held = await begun(server, shares, 60_000, 30_000);
    const waiting = await begun(server, shares, 60_000, 30_000);
    expect([bytes.held, bytes.waiting]).toEqual([460_000, 1]);
    waiting.resetAndDestroy();
    await expect.poll(() => bytes.waiting).toBe(0);
    held.resetAndDestroy();
    await expect.poll(() => bytes.held).toBe(400_000);
  });

  it('hold nothing if their client has gone before they are read', async () => {
    const shares = sharesOf({ capacity: 2_000_000 });
    const checked = Promise.withResolvers<void>();
    let isAsked = false;
    await using server = await startWith(shares, (app) => {
      app.addHook('onRequest', async () => {
        isAsked = true;
        await checked.promise;
      });
    });
    const socket = openRaw(server.port);
    socket.on('error', () => undefined);
    const met = once(server.app.server, 'request');
    socket.write(headOf(1_000_000, 'gone'));
    const [request] = (await met) as [IncomingMessage];
    const connection = request.socket;
    await expect.poll(() => isAsked).toBe(true);
    const closed = new Promise((resolve) => connection.once('close', resolve));
    socket.resetAndDestroy();
    await closed;
    checked.resolve();
    // The hooks behind it have run.
    await setImmediate();
    await setImmediate();
    expect([shares.gate.bytes.held, shares.gate.bytes.waiting]).toEqual([0, 0]);
  });

  it('bodies of unknown length hold the longest of their route while they arrive, and are refused beyond it', async () => {
    const shares = sharesOf({ capacity: 20_000_000 });
    await using server = await startWith(shares, (app: FastifyInstance) => {
      app.post('/small', { bodyLimit: 1_000 }, async () => 'ok');
    });
    const chunked = (path: string, bytes: number) =>
      `POST ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n${JSON_TYPE}\r\n` +
      `${bytes.toString(16)}\r\n${'x'.repeat(bytes)}\r\n0\r\n\r\n`;
    expect((await sendRaw(server.port, chunked('/bodies', 500_000))).status).toBe(200);
    expectProblem(await sendRaw(server.port, chunked('/small', 1_001)), 'payload_too_large');
    await expect.poll(() => shares.gate.bytes.held).toBe(0);
  });

  it('requests without a body need no bytes', async () => {
    const shares = sharesOf({ capacity: 1 });
    await using server = await startWith(shares);
    using _all = shares.gate.bytes.charge(OTHER, 1);
    expect((await sendRaw(server.port, get('/items/a'))).status).toBe(200);
  });
});

describe('requests from a trusted proxy', () => {
  it('count by the address of the client behind the proxy, and only trusted proxies may name that address', async () => {
    const { promise: end, resolve } = Promise.withResolvers<void>();
    const hold = (app: FastifyInstance) =>
      app.get('/hold', async (request) => {
        await end;
        return request.ip;
      });
    const ask = (server: Running, path: string, address: string) =>
      sendRaw(server.port, get(path, `X-Forwarded-For: ${address}\r\n`));
    const shares = createHttpShares({ ofAddressMax: 2, isProxy: (peer) => peer === '127.0.0.1' });
    const { forwarded } = shares.connections;
    await using server = await startWith(shares, hold);
    const held = [ask(server, '/hold', '192.0.2.1'), ask(server, '/hold', '192.0.2.1')];
    await expect.poll(() => forwarded.held).toBe(2);
    expectProblem(await ask(server, '/items/a', '192.0.2.1'), 'rate_limited');
    expect((await ask(server, '/items/a', '192.0.2.2')).status).toBe(200);
    resolve();
    expect((await Promise.all(held)).map(({ body }) => body)).toEqual(['192.0.2.1', '192.0.2.1']);
    await expect.poll(() => [forwarded.held, forwarded.subjects]).toEqual([0, 0]);
    await using other = await startWith(createHttpShares(), hold);
    expect((await ask(other, '/hold', '192.0.2.1')).body).toBe('127.0.0.1');
  });
});
