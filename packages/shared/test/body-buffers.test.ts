import type { Socket } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { describe, expect, it, vi } from 'vitest';
import { bodyBudgetOf } from '../src/http/body-buffer-budget.ts';
import { createHttpShares } from '../src/http/http-shares.ts';
import { MAKE_ROOM_AFTER_MS } from '../src/http/pace.ts';
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
import { readAnswer, sendRaw } from './raw-http.ts';
import { expectProblem, get, JSON_TYPE, post, type Running } from './started-server.ts';

useBufferBudgets();

describe('bodies', () => {
  it('that are announced but not sent hold nothing', async () => {
    const shares = sharesOf({ capacity: 1_000_000 });
    await using server = await startWith(shares);
    for (let n = 0; n < 8; n++) await begun(server, shares.bodies, BODY_BYTES_MAX, 0);
    expect(shares.bodies.held).toBe(0);
    const whole = headOf(900_000, 'other') + 'x'.repeat(900_000);
    expect((await sendRaw(server.port, whole)).status).toBe(200);
    await expect.poll(() => shares.bodies.held).toBe(0);
  });

  it('that are small find room in a reserve while large ones use all other room', async () => {
    const shares = sharesOf({ capacity: 1_000_000, reserve: 125_000, smallMax: 65_536 });
    await using server = await startWith(shares);
    using _all = shares.bodies.charge({ subject: 'large', project: 'p' }, 875_000);
    for (const bytes of [1, 20_000, 65_536])
      expect((await sendRaw(server.port, headOf(bytes, 'small') + 'x'.repeat(bytes))).status).toBe(200);
  });

  it('without room are not read further, and are refused with the name of the share before anything begins', async () => {
    const shares = sharesOf({ capacity: 1_000_000, waitMs: 20 });
    let isBegun = false;
    await using server = await startWith(shares, (app) => {
      app.addHook('preHandler', async () => {
        isBegun = true;
      });
    });
    for (const [holder, code, detail] of [
      ['other', 'overloaded', 'the service has no request bodies to spare'],
      ['own', 'rate_limited', 'your share of request bodies is in use'],
    ] as const) {
      using _all = shares.bodies.charge({ subject: holder, project: 'p' }, 1_000_000);
      // Of each subject, one small body is read in extra room.
      const first = await begun(server, shares.bodies, 60_000, 1, 'own');
      const answer = await sendRaw(server.port, headOf(60_000, 'own') + 'x'.repeat(30_000));
      expect(expectProblem(answer, code).detail).toBe(detail);
      expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0);
      expect(answer.headers['connection']).toBe('close');
      first.destroy();
      await expect.poll(() => shares.bodies.held).toBe(1_000_000);
    }
    expect([isBegun, shares.bodies.held, shares.bodies.waiting]).toEqual([false, 0, 0]);
  });

  it('are read once there is room', async () => {
    const shares = sharesOf({ capacity: 1_000_000 });
    await using server = await startWith(shares);
    const all = shares.bodies.charge(OTHER, 1_000_000);
    await begun(server, shares.bodies, 60_000, 1);
    const socket = await begun(server, shares.bodies, 60_000, 60_000);
    expect(shares.bodies.waiting).toBe(1);
    all[Symbol.dispose]();
    expect(JSON.parse((await readAnswer(socket)).body)).toEqual({ bytes: 60_000 });
  });

  it('that are partly read and use all room do not deadlock: the one nearest to its end is read to its end', async () => {
    const shares = sharesOf({ capacity: 1_000_000 });
    await using server = await startWith(shares);
    const half = [];
    for (let n = 0; n < 4; n++) half.push(await begun(server, shares.bodies, 1_000_000, 250_000));
    const rest = half.map(async (socket) => {
      socket.write('x'.repeat(750_000));
      return JSON.parse((await readAnswer(socket)).body);
    });
    expect(await Promise.all(rest)).toEqual(Array(4).fill({ bytes: 1_000_000 }));
    await expect.poll(() => shares.bodies.subjects).toBe(0);
  });

  it('that are small are read in extra room, one of each subject, while bodies that stop hold all room and the reserve', async () => {
    const shares = sharesOf({ capacity: 1_000_000, reserve: 125_000, smallMax: 65_536 });
    await using server = await startWith(shares);
    using _all = shares.bodies.charge({ subject: 'large', project: 'p' }, 875_000);
    // Of a subject, two take its part of the reserve and the extra room.
    for (const subject of ['a', 'a', 'b', 'b']) await begun(server, shares.bodies, 60_000, 1, subject);
    for (let n = 0; n < 3; n++)
      expect((await sendRaw(server.port, headOf(30_000, 'small') + 'x'.repeat(30_000))).status).toBe(200);
  });

  it('that are large and slow do not keep all extra room from those of others', async () => {
    const shares = sharesOf({ capacity: 1_000_000 });
    await using server = await startWith(shares);
    using _all = shares.bodies.charge({ subject: 'large', project: 'p' }, 1_000_000);
    await begun(server, shares.bodies, 1_000_000, 1, 'slow');
    const other = await sendRaw(server.port, headOf(100_000, 'other') + 'x'.repeat(100_000));
    expect(other.status).toBe(200);
  });

  it('that were read in extra room admit no other one until they are answered', async () => {
    const shares = sharesOf({ capacity: 1_000_000 });
    const begins: (() => void)[] = [];
    await using server = await startWith(shares, (app) => {
      app.addHook('preHandler', () => new Promise<void>((resolve) => begins.push(resolve)));
    });
    const half = [];
    for (let n = 0; n < 4; n++) half.push(await begun(server, shares.bodies, 1_000_000, 250_000));
    const answers = half.map(async (socket) => {
      socket.write('x'.repeat(750_000));
      return (await readAnswer(socket)).status;
    });
    for (let n = 0; n < 4; n++) {
      await expect.poll(() => begins.length).toBe(n + 1);
      // The capacity, and one body in extra room.
      expect(shares.bodies.held).toBeLessThanOrEqual(2_000_000);
      begins[n]?.();
    }
    expect(await Promise.all(answers)).toEqual([200, 200, 200, 200]);
    await expect.poll(() => shares.bodies.subjects).toBe(0);
  });

  it('that arrive too slowly are refused while more than half of the room is in use, the slowest first', async () => {
    const shares = sharesOf({ capacity: 1_000_000 });
    await using server = await startWith(shares);
    const slowest = await begun(server, shares.bodies, 200_000, 1_000);
    const slow = await begun(server, shares.bodies, 200_000, 40_000);
    const fast = await begun(server, shares.bodies, 200_000, 150_000);
    const room = bodyBudgetOf(server.app);
    for (let second = 0; second < 6; second++) room.sweep();
    expectProblem(await readAnswer(slowest), 'request_timeout');
    expect([room.cuts, shares.bodies.held]).toEqual([1, 400_000]);
    slow.write('x'.repeat(160_000));
    fast.write('x'.repeat(50_000));
    for (const socket of [slow, fast]) expect((await readAnswer(socket)).status).toBe(200);
    await expect.poll(() => shares.bodies.held).toBe(0);
  });

  it('of the subject that holds most are refused at any pace when another subject waits', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const clock = new FakeClock();
    const shares = sharesOf({ capacity: 1_000_000, clock });
    await using server = await startWith(shares);
    const room = bodyBudgetOf(server.app);
    // Three use all room, and the fourth one is read in extra room, which no other body gets.
    const greedy = [];
    for (let n = 0; n < 4; n++) greedy.push(await begun(server, shares.bodies, 1_000_000, 250_000, 'greedy'));
    const modest = await begun(server, shares.bodies, 300_000, 300_000, 'modest');
    expect(shares.bodies.waiting).toBe(1);
    room.sweep();
    expect([room.cuts, shares.bodies.waiting]).toEqual([0, 1]);
    clock.advance(MAKE_ROOM_AFTER_MS);
    room.sweep();
    expect(shares.bodies.waiting).toBe(0);
    expect(JSON.parse((await readAnswer(modest)).body)).toEqual({ bytes: 300_000 });
    expectProblem(await readAnswer(greedy[3] as Socket), 'request_timeout');
    expect(room.cuts).toBe(1);
    for (const socket of greedy) socket.destroy();
    await expect.poll(() => shares.bodies.subjects).toBe(0);
  });

  it('that arrive slowly are read while there is room', async () => {
    const shares = sharesOf({ capacity: 1_000_000 });
    await using server = await startWith(shares);
    const socket = await begun(server, shares.bodies, 400_000, 1_000);
    for (let second = 0; second < 60; second++) bodyBudgetOf(server.app).sweep();
    socket.write('x'.repeat(399_000));
    expect((await readAnswer(socket)).status).toBe(200);
  });

  it('release their room at once when their clients disconnect, even while they wait', async () => {
    const shares = sharesOf({ capacity: 500_000 });
    await using server = await startWith(shares);
    using _most = shares.bodies.charge(OTHER, 400_000);
    const held = await begun(server, shares.bodies, 60_000, 30_000);
    const inExtraRoom = await begun(server, shares.bodies, 60_000, 30_000);
    const waiting = await begun(server, shares.bodies, 60_000, 30_000);
    expect([shares.bodies.held, shares.bodies.waiting]).toEqual([520_000, 1]);
    waiting.resetAndDestroy();
    await expect.poll(() => shares.bodies.waiting).toBe(0);
    for (const socket of [held, inExtraRoom]) socket.resetAndDestroy();
    await expect.poll(() => shares.bodies.held).toBe(400_000);
  });

  it('of unknown length take room as they arrive, and are refused beyond the limit of their route', async () => {
    const shares = sharesOf({ capacity: 1_000_000 });
    await using server = await startWith(shares, (app) => {
      app.post('/small', { bodyLimit: 1_000 }, async () => 'ok');
    });
    const chunked = (path: string, bytes: number) =>
      `POST ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n${JSON_TYPE}\r\n` +
      `${bytes.toString(16)}\r\n${'x'.repeat(bytes)}\r\n0\r\n\r\n`;
    expect(JSON.parse((await sendRaw(server.port, chunked('/bodies', 300_000))).body)).toEqual({
      bytes: 300_000,
    });
    expectProblem(await sendRaw(server.port, chunked('/small', 1_001)), 'payload_too_large');
    expectProblem(
      await sendRaw(server.port, post('x'.repeat(1_001), JSON_TYPE, '/small')),
      'payload_too_large',
    );
    await expect.poll(() => shares.bodies.held).toBe(0);
  });
});

describe('requests from a trusted proxy', () => {
  it('count by the address of the client behind the proxy, and other senders of that header are not believed', async () => {
    const { promise: end, resolve } = Promise.withResolvers<void>();
    const hold = (app: FastifyInstance) =>
      app.get('/hold', async (request) => {
        await end;
        return request.ip;
      });
    const ask = (server: Running, path: string, address: string) =>
      sendRaw(server.port, get(path, `X-Forwarded-For: ${address}\r\n`));
    const shares = createHttpShares({ connectionsOfAddressMax: 2, isProxy: (peer) => peer === '127.0.0.1' });
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
