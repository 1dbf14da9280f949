import { once } from 'node:events';
import type { Socket } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { answerBudgetOf, READ, reserveAnotherPage, reserveAnswer } from '../src/http/answer-buffer-budget.ts';
import { bodyBudgetOf } from '../src/http/body-buffer-budget.ts';
import { createHttpShares, type HttpShares } from '../src/http/http-shares.ts';
import { MAKE_ROOM_AFTER_MS, PACE_MIN } from '../src/http/pace.ts';
import { chargeRequest } from '../src/http/request-share.ts';
import { systemClock } from '../src/runtime/clock.ts';
import { Share, type ShareOptions } from '../src/shares/share.ts';
import { FakeClock } from '../src/testing/fake-clock.ts';
import { openRaw, readAnswer, sendRaw } from './raw-http.ts';
import { expectProblem, get, JSON_TYPE, post, type Running, start } from './started-server.ts';

const BODY_BYTES_MAX = 16_000_000;
const OTHER = { subject: 'other', project: 'p' };

const sockets: Socket[] = [];
afterEach(() => {
  vi.useRealTimers();
  for (const socket of sockets.splice(0)) socket.destroy();
});

function sharesOf(
  bodies: Partial<ShareOptions>,
  answers: Partial<ShareOptions> = { capacity: 1_000_000_000 },
): HttpShares {
  const common = { clock: systemClock, capacity: 0 };
  return {
    ...createHttpShares(),
    bodies: new Share({ ...common, name: 'request bodies', ...bodies }),
    answers: new Share({ ...common, name: 'answers', ...answers }),
  };
}

/** A server whose clients name their share in a header. */
function startWith(shares: HttpShares, routes: (app: FastifyInstance) => void = () => undefined) {
  return start({ shares, bodyBytesMax: BODY_BYTES_MAX, closeGraceMs: 0 }, (app) => {
    app.addHook('onRequest', (request, _reply, done) => {
      const { subject } = request.headers;
      if (typeof subject === 'string') chargeRequest(request, { subject, project: 'p' });
      done();
    });
    app.post('/bodies', async (request) => ({ bytes: (request.body as Buffer).length }));
    routes(app);
  });
}

const headOf = (bytes: number, subject: string) =>
  `POST /bodies HTTP/1.1\r\nHost: x\r\nConnection: close\r\nSubject: ${subject}\r\nContent-Length: ${bytes}\r\n${JSON_TYPE}\r\n`;

/**
 * Starts a client that announces a body and sends a part of it. Resolves once the server holds room for that.
 */
async function begun(server: Running, share: Share, bytes: number, sent: number, subject = 'slow') {
  const before = share.held + share.waiting;
  const socket = openRaw(server.port);
  sockets.push(socket);
  socket.on('error', () => undefined);
  const met = once(server.app.server, 'request');
  socket.write(headOf(bytes, subject));
  await met;
  socket.write('x'.repeat(sent));
  if (sent > 0) await expect.poll(() => share.held + share.waiting).toBeGreaterThan(before);
  return socket;
}

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
      const answer = await sendRaw(server.port, headOf(60_000, 'own') + 'x'.repeat(30_000));
      expect(expectProblem(answer, code).detail).toBe(detail);
      expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0);
      expect(answer.headers['connection']).toBe('close');
    }
    expect([isBegun, shares.bodies.held, shares.bodies.waiting]).toEqual([false, 0, 0]);
  });

  it('are read once there is room', async () => {
    const shares = sharesOf({ capacity: 1_000_000 });
    await using server = await startWith(shares);
    const all = shares.bodies.charge(OTHER, 1_000_000);
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
    const waiting = await begun(server, shares.bodies, 60_000, 30_000);
    expect([shares.bodies.held, shares.bodies.waiting]).toEqual([460_000, 1]);
    waiting.resetAndDestroy();
    await expect.poll(() => shares.bodies.waiting).toBe(0);
    held.resetAndDestroy();
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

describe('answers', () => {
  const BIG = 24_000_000;

  /** Starts clients that request a large answer and read nothing. Resolves once the answers are held. */
  async function greedyReaders(server: Running, share: Share, count: number): Promise<Socket[]> {
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
  async function acceptedReader(server: Running, share: Share): Promise<[Socket, Socket]> {
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
    const shares = sharesOf({ capacity: 1_000 }, { capacity: 3 * BIG, waitMs: 20 });
    await using server = await startWith(shares, big);
    const greedy = await greedyReaders(server, shares.answers, 3);
    const refused = await sendRaw(server.port, get('/big', 'Subject: greedy\r\n'));
    expect(expectProblem(refused, 'rate_limited').detail).toBe('your share of answers is in use');
    expectProblem(await sendRaw(server.port, get('/big', 'Subject: other\r\n')), 'overloaded');
    expect((await sendRaw(server.port, get('/items/a'))).status).toBe(200);
    for (const socket of greedy) socket.destroy();
    for (let round = 0; round < 5; round++)
      expect((await sendRaw(server.port, get('/big'))).body).toHaveLength(BIG);
    await expect.poll(() => [shares.answers.held, shares.answers.subjects]).toEqual([0, 0]);
  });

  it('that are large are not built for a subject that has unread answers and no room for another', async () => {
    let made = 0;
    const shares = sharesOf({ capacity: 1_000 }, { capacity: 3 * BIG, waitMs: 20 });
    await using server = await startWith(shares, (app) => {
      app.get('/big', async (request) => {
        await reserveAnotherPage(request, BIG);
        made++;
        return 'x'.repeat(BIG);
      });
      app.get('/small', async (request) => {
        await reserveAnotherPage(request, BIG);
        return 'ok';
      });
    });
    await greedyReaders(server, shares.answers, 3);
    expectProblem(await sendRaw(server.port, get('/big', 'Subject: greedy\r\n')), 'rate_limited');
    expect(made).toBe(3);
    expect((await sendRaw(server.port, get('/small', 'Subject: other\r\n'))).status).toBe(200);
  });

  it('that are not built yet wait for room, however few bytes of built ones may wait', async () => {
    const shares = sharesOf({ capacity: 1_000 }, { capacity: BIG, waitingUnitsMax: BIG / 8 });
    await using server = await startWith(shares, (app) => {
      big(app);
      app.get('/page', async (request) => {
        await reserveAnotherPage(request, BIG);
        return 'ok';
      });
    });
    const [greedy] = await greedyReaders(server, shares.answers, 1);
    const answer = sendRaw(server.port, get('/page', 'Subject: greedy\r\n'));
    await expect.poll(() => shares.answers.waiting).toBe(1);
    greedy?.destroy();
    expect((await answer).status).toBe(200);
  });

  it('release everything on a connection that carries many of them', async () => {
    const shares = sharesOf({ capacity: 1_000 });
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
      await expect.poll(() => shares.answers.held).toBe(0);
    }
    expect(peer.listenerCount('close')).toBeLessThanOrEqual(before + 2);
  });

  it('that wait for room are sent once there is some', async () => {
    const shares = sharesOf({ capacity: 1_000 }, { capacity: BIG });
    await using server = await startWith(shares, big);
    const [greedy] = await greedyReaders(server, shares.answers, 1);
    const answer = sendRaw(server.port, get('/big', 'Subject: other\r\n'));
    await expect.poll(() => shares.answers.waiting).toBe(1);
    greedy?.destroy();
    expect((await answer).body).toHaveLength(BIG);
  });

  it('of writes are never refused: their room is reserved before the write begins, or it does not begin', async () => {
    let begun = 0;
    const shares = sharesOf({ capacity: 1_000 }, { capacity: 2 * BIG + 200_000, waitMs: 20 });
    await using server = await startWith(shares, (app) => {
      big(app);
      app.post('/writes/:reserved', async (request) => {
        await reserveAnswer(request, Number((request.params as { reserved: string }).reserved));
        begun++;
        return 'x'.repeat(BIG);
      });
      app.post('/reads', { config: READ }, async () => 'x'.repeat(BIG));
    });
    const write = (reserved: number) => post('{}', `${JSON_TYPE}Subject: other\r\n`, `/writes/${reserved}`);
    const greedy = await greedyReaders(server, shares.answers, 2);
    expectProblem(
      await sendRaw(server.port, post('{}', `${JSON_TYPE}Subject: other\r\n`, '/reads')),
      'overloaded',
    );
    // Its answer has no room, but is sent.
    expect((await sendRaw(server.port, write(100_000))).body).toHaveLength(BIG);
    expect(begun).toBe(1);
    expectProblem(await sendRaw(server.port, write(300_000)), 'overloaded');
    expect(begun).toBe(1);
    // Each answer releases its reservation.
    for (let round = 0; round < 3; round++)
      expect((await sendRaw(server.port, write(199_000))).status).toBe(200);
    for (const socket of greedy) socket.destroy();
    await expect.poll(() => shares.answers.held).toBe(0);
  });

  it('that are read too slowly are cut off while more than half of the room is in use, and no others', async () => {
    // Only the test advances the seconds.
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const shares = sharesOf({ capacity: 1_000 }, { capacity: 3 * BIG });
    await using server = await startWith(shares, big);
    const room = answerBudgetOf(server.app);
    const [stalled] = await acceptedReader(server, shares.answers);
    const [reading, client] = await acceptedReader(server, shares.answers);
    // More than half of the room is in use even without the first one.
    using _rest = shares.answers.charge(OTHER, BIG);
    // Its answers exceed whatever the sockets buffer.
    client.write(get('/big', 'Subject: greedy\r\n').replace('Connection: close\r\n', '').repeat(50));
    while (room.cuts === 0) {
      // Nobody reads the first one. The other is read faster than the minimum pace.
      const before = unsentBytes(reading);
      while (Math.abs(unsentBytes(reading) - before) < 10 * PACE_MIN) await read(client, 1);
      room.sweep();
    }
    for (let second = 0; second < 3; second++) room.sweep();
    expect([room.cuts, stalled.destroyed, reading.destroyed]).toEqual([1, true, false]);
    await expect.poll(() => shares.answers.held).toBe(2 * BIG);
  });

  it('of the subject that holds most are cut off at any pace when another subject waits', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const clock = new FakeClock();
    const shares = sharesOf({ capacity: 1_000 }, { capacity: 3 * BIG, clock });
    await using server = await startWith(shares, big);
    const room = answerBudgetOf(server.app);
    await greedyReaders(server, shares.answers, 3);
    const answer = sendRaw(server.port, get('/big', 'Subject: other\r\n'));
    await expect.poll(() => shares.answers.waiting).toBe(1);
    // Their pace is still unknown.
    room.sweep();
    expect([room.cuts, shares.answers.waiting]).toEqual([0, 1]);
    clock.advance(MAKE_ROOM_AFTER_MS);
    room.sweep();
    room.sweep();
    expect([room.cuts, shares.answers.waiting]).toEqual([1, 0]);
    expect((await answer).body).toHaveLength(BIG);
    await expect.poll(() => shares.answers.held).toBe(2 * BIG);
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
