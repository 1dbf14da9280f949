import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EventStream } from '../src/http/event-stream.ts';
import { openRaw, parseAnswer, type RawAnswer, readAll, sendRaw } from './raw-http.ts';
import { expectProblem, get, JSON_TYPE, post, type Running, start } from './started-server.ts';

/** A server whose requests create and remove items, with a log of the requests that began, in order. */
interface Store extends Running {
  readonly items: Set<string>;
  readonly begun: string[];
  /** How many requests were parsed, except those for `/slow` and `/items/x`. */
  readonly parsed: () => number;
  /** Releases `/slow`. */
  readonly release: () => void;
  readonly slowBegun: Promise<void>;
}

async function startStore(
  options: Parameters<typeof start>[0] = {},
  routes: Parameters<typeof start>[1] = () => undefined,
): Promise<Store> {
  const items = new Set<string>();
  const begun: string[] = [];
  const slow = Promise.withResolvers<void>();
  const released = Promise.withResolvers<void>();
  const running = await start(options, (app) => {
    app.put('/store/:id', async (request, reply) => {
      begun.push(`PUT ${(request.params as { id: string }).id}`);
      await new Promise(setImmediate);
      items.add((request.params as { id: string }).id);
      return reply.code(201).send({});
    });
    app.get('/store/:id', async (request, reply) => {
      begun.push(`GET ${(request.params as { id: string }).id}`);
      return reply.code(items.has((request.params as { id: string }).id) ? 200 : 404).send({});
    });
    app.delete('/store/:id', async (request, reply) => {
      begun.push(`DELETE ${(request.params as { id: string }).id}`);
      await new Promise(setImmediate);
      items.delete((request.params as { id: string }).id);
      return reply.code(204).send();
    });
    app.post('/slow', async (_request, reply) => {
      begun.push('POST slow');
      slow.resolve();
      await released.promise;
      return reply.code(201).send({ done: true });
    });
    routes(app);
  });
  let parsed = 0;
  running.app.server.prependListener('request', ({ url }: IncomingMessage) => {
    if (url !== '/slow' && url !== '/items/x') parsed++;
  });
  return {
    ...running,
    parsed: () => parsed,
    items,
    begun,
    release: released.resolve,
    slowBegun: slow.promise,
  };
}

const keep = (bytes: string) => bytes.replace('Connection: close\r\n', '');
const put = (id: string) => `PUT /store/${id} HTTP/1.1\r\nHost: x\r\n${JSON_TYPE}Content-Length: 2\r\n\r\n{}`;
const remove = (id: string) => keep(get(`/store/${id}`)).replace('GET', 'DELETE');
const slow = keep(post('{}', JSON_TYPE, '/slow'));

function send(port: number, bytes: string): Socket {
  const socket = openRaw(port);
  socket.on('error', () => undefined);
  socket.write(bytes);
  return socket;
}

async function answersOf(socket: Socket): Promise<RawAnswer[]> {
  const text = await readAll(socket);
  return text === '' ? [] : text.split(/(?=HTTP\/1\.1 \d)/).map(parseAnswer);
}

const statusesOf = (answers: readonly RawAnswer[]) => answers.map(({ status }) => status);

let server: Store;
beforeAll(async () => {
  server = await startStore();
});
afterAll(() => server[Symbol.asyncDispose]());

describe('requests pipelined on one connection', () => {
  it('take effect in their order', async () => {
    const bytes = put('a') + keep(get('/store/a')) + remove('a') + get('/store/a');
    expect(statusesOf(await answersOf(send(server.port, bytes)))).toEqual([201, 200, 204, 404]);
    expect(server.items.has('a')).toBe(false);
  });

  it('take effect in their order when they arrive byte by byte', async () => {
    const socket = openRaw(server.port);
    socket.setNoDelay(true);
    const answers = answersOf(socket);
    for (const byte of put('b') + keep(get('/store/b')) + remove('b') + get('/store/b')) {
      socket.write(byte);
      await new Promise(setImmediate);
    }
    expect(statusesOf(await answers)).toEqual([201, 200, 204, 404]);
  });

  it('begin when the previous answer has ended, and do not delay other connections', async () => {
    await using own = await startStore();
    const socket = send(own.port, slow + put('a') + get('/store/a'));
    await own.slowBegun;
    expect((await sendRaw(own.port, get('/items/x'))).status).toBe(200);
    expect(own.begun).toEqual(['POST slow']);
    own.release();
    expect(statusesOf(await answersOf(socket))).toEqual([201, 201, 200]);
    expect(own.begun).toEqual(['POST slow', 'PUT a', 'GET a']);
  });

  it('do not begin after an answer that ends the connection', async () => {
    await using own = await startStore();
    const socket = send(own.port, slow.replace('Host: x', 'Host: x\r\nConnection: close') + put('a'));
    await own.slowBegun;
    own.release();
    expect(statusesOf(await answersOf(socket))).toEqual([201]);
    expect(own.begun).toEqual(['POST slow']);
  });

  it('do not begin once the client has disconnected', async () => {
    await using own = await startStore();
    const accepted = once(own.app.server, 'connection') as Promise<[Socket]>;
    const socket = send(own.port, slow + put('a'));
    const [peer] = await accepted;
    await own.slowBegun;
    socket.resetAndDestroy();
    peer.on('error', () => undefined);
    await new Promise((resolve) => peer.once('close', resolve));
    own.release();
    await new Promise(setImmediate);
    expect(own.begun).toEqual(['POST slow']);
  });

  /** A connection whose first request is running. */
  async function held(own: Store) {
    const socket = openRaw(own.port);
    socket.on('error', () => undefined);
    const answers = answersOf(socket);
    socket.write(slow);
    await own.slowBegun;
    return { socket, answers, parsed: own.parsed };
  }

  /** Waits until the server has read all that it may. */
  async function settle({ port }: Store): Promise<void> {
    for (let turn = 0; turn < 50; turn++) await sendRaw(port, get('/items/x'));
  }

  const chunked = `POST /items HTTP/1.1\r\nHost: x\r\n${JSON_TYPE}Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n`;

  // Each takes a kilobyte in addition to its bytes.
  it.each([
    ['small ones', keep(get('/items/a')), 8_000, 32],
    ['those with large heads', keep(get('/items/a', `X: ${'a'.repeat(15_000)}\r\n`)), 40, 3],
    ['those with bodies', keep(post(' '.repeat(900), JSON_TYPE)), 400, 17],
    [
      'those whose bodies exceed the limit of waiting bytes',
      keep(post('{}', JSON_TYPE)) + keep(post(' '.repeat(60_000), JSON_TYPE, '/large')),
      20,
      2,
    ],
    ['those whose bodies have no known length', chunked, 1_000, 1],
    ['those with an empty body', keep(post('', JSON_TYPE, '/large')), 1_000, 31],
  ])(
    'are parsed up to 32 KiB ahead, however much one read returns, and all are answered: %s',
    async (_what, one, all, ahead) => {
      await using own = await startStore({}, (app) => {
        app.post('/large', { bodyLimit: 100_000 }, async () => ({}));
      });
      const { socket, answers, parsed } = await held(own);
      socket.write(one.repeat(all));
      await expect.poll(parsed).toBe(ahead);
      await settle(own);
      expect(parsed()).toBe(ahead);
      own.release();
      socket.write(get('/store/a'));
      const requests = all * (one.split('HTTP/1.1').length - 1);
      expect(statusesOf(await answers)).toEqual([201, ...Array(requests).fill(200), 404]);
      expect(parsed()).toBe(requests + 1);
    },
  );

  it('are all answered when the client ends its half after more than may wait', async () => {
    await using own = await startStore();
    const { socket, answers } = await held(own);
    socket.end(keep(get('/items/a')).repeat(500));
    await settle(own);
    own.release();
    expect(statusesOf(await answers)).toEqual([201, ...Array(500).fill(200)]);
  });

  it('are all answered before bytes that are not HTTP, even if more requests than may wait precede those', async () => {
    await using own = await startStore();
    const { socket, answers } = await held(own);
    socket.write(`${keep(get('/items/a')).repeat(500)}garbage\r\n\r\n`);
    await settle(own);
    own.release();
    expect(statusesOf(await answers)).toEqual([201, ...Array(500).fill(200), 400]);
  });

  it('are all answered when the client reads the answers late', async () => {
    await using own = await startStore({}, (app) => {
      app.get('/long', async () => 'x'.repeat(10_000));
    });
    const { socket, answers, parsed } = await held(own);
    socket.pause();
    socket.write(keep(get('/long')).repeat(2_000) + get('/store/a'));
    own.release();
    await expect.poll(parsed).toBeGreaterThan(100);
    await settle(own);
    socket.resume();
    expect(statusesOf(await answers)).toEqual([201, ...Array(2_000).fill(200), 404]);
  });

  it('wait one per connection once the limit of the server is reached', async () => {
    await using own = await startStore({ waitingBytesMax: 20_000 });
    const all = await Promise.all(Array.from({ length: 20 }, () => held(own)));
    for (const { socket } of all) socket.write(keep(get('/items/a')).repeat(200));
    await expect.poll(own.parsed).toBeGreaterThan(20);
    await settle(own);
    expect(own.parsed()).toBeLessThan(20_000 / 1_024 + 20);
    own.release();
    for (const { socket } of all) socket.write(get('/store/a'));
    for (const { answers } of all)
      expect(statusesOf(await answers)).toEqual([201, ...Array(200).fill(200), 404]);
  });

  it('release their room when their connection closes', async () => {
    await using own = await startStore({ waitingBytesMax: 20_000, stalledTimeoutMs: 200 });
    for (let round = 0; round < 3; round++) {
      const before = own.parsed();
      const { socket } = await held(own);
      const closed = once(socket, 'close');
      socket.write(keep(get('/items/a')).repeat(200));
      await closed;
      // The same number each time.
      expect(own.parsed()).toBe(before + 20);
    }
    own.release();
  });
});

describe('bytes after a request that are not HTTP', () => {
  it('change neither its effect nor its answer: 201, then 400, then the end', async () => {
    const answers = await answersOf(send(server.port, `${put('c')}garbage\r\n\r\n`));
    expect(statusesOf(answers)).toEqual([201, 400]);
    expectProblem(answers[1] as RawAnswer, 'invalid_request');
    expect(answers[1]?.headers['connection']).toBe('close');
    expect(server.items.has('c')).toBe(true);
  });

  it('are refused once, after every pending answer', async () => {
    await using own = await startStore();
    const socket = send(own.port, `${slow}${put('a')}${keep(get('/store/a'))}garbage\r\n\r\n`);
    await own.slowBegun;
    socket.write('more garbage\r\n\r\n');
    own.release();
    expect(statusesOf(await answersOf(socket))).toEqual([201, 201, 200, 400]);
  });

  it('are also refused when the client ends its half after them', async () => {
    await using own = await startStore();
    const socket = send(own.port, `${slow}garbage\r\n\r\n`);
    socket.end();
    await own.slowBegun;
    await sendRaw(own.port, get('/items/x'));
    own.release();
    expect(statusesOf(await answersOf(socket))).toEqual([201, 400]);
  });

  it('are dropped after a request that ends the connection', async () => {
    const socket = send(server.port, `${put('d').replace('Host: x', 'Host: x\r\nConnection: close')}garbage`);
    expect(statusesOf(await answersOf(socket))).toEqual([201]);
  });

  it('in the body of a request make it fail without effect, even if it waits for its turn', async () => {
    await using own = await startStore();
    const chunked = `PUT /store/e HTTP/1.1\r\nHost: x\r\n${JSON_TYPE}Transfer-Encoding: chunked\r\n\r\nzz\r\n`;
    const socket = send(own.port, slow + chunked);
    await own.slowBegun;
    own.release();
    const answers = await answersOf(socket);
    expect(statusesOf(answers)).toEqual([201, 400]);
    expectProblem(answers[1] as RawAnswer, 'invalid_request');
    expect(own.begun).toEqual(['POST slow']);
  });
});

describe('a client that ends its half of the connection', () => {
  it('counts as gone for an endless stream', async () => {
    await using own = await start({}, (app) => {
      app.get('/events', async (_request, reply) => {
        reply.hijack();
        new EventStream(reply.raw).send('data: 1\n\n');
        return reply;
      });
    });
    const socket = send(own.port, keep(get('/events')));
    await once(socket, 'data');
    socket.end();
    await once(socket, 'close');
  });

  it('gets the answers to all its earlier requests', async () => {
    await using own = await startStore();
    const socket = send(own.port, slow + put('a') + keep(get('/store/a')));
    socket.end();
    await own.slowBegun;
    // The FIN has arrived when a later connection is answered.
    await sendRaw(own.port, get('/items/x'));
    own.release();
    expect(statusesOf(await answersOf(socket))).toEqual([201, 201, 200]);
  });

  it('in the middle of a body gets 400, and the request has no effect', async () => {
    const socket = send(server.port, put('f').slice(0, -1));
    socket.end();
    const answers = await answersOf(socket);
    expect(statusesOf(answers)).toEqual([400]);
    expect(server.items.has('f')).toBe(false);
  });
});

describe('a request that does not arrive in time', () => {
  it('but has its answer already ends the connection, even if the client keeps sending and does not close its half', async () => {
    await using own = await start({ requestTimeoutMs: 50 });
    const accepted = once(own.app.server, 'connection') as Promise<[Socket]>;
    const socket = connect({ port: own.port, host: '127.0.0.1', allowHalfOpen: true });
    socket.on('error', () => undefined);
    const answered = once(socket, 'data') as Promise<[Buffer]>;
    socket.write(
      'POST /items HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 900\r\n\r\n{',
    );
    const [peer] = await accepted;
    peer.on('error', () => undefined);
    const sending = setInterval(() => socket.write(' '), 20);
    try {
      await expect.poll(() => peer.destroyed, { timeout: 3_000 }).toBe(true);
      expect(parseAnswer((await answered)[0].toString()).status).toBe(415);
    } finally {
      clearInterval(sending);
      socket.destroy();
    }
  });

  it.each([
    ['alone, in its body', '', put('a').slice(0, -1), '}', [408]],
    ['alone, in its head', '', put('a').slice(0, 20), put('a').slice(20), [408]],
    ['behind another, in its head', slow, put('a').slice(0, 20), put('a').slice(20), [201, 408]],
  ])(
    '%s, gets 408 and has no effect, although the rest arrives late',
    async (_what, before, head, rest, all) => {
      await using own = await startStore({ requestTimeoutMs: 50 });
      const late = once(own.app.server, 'clientError');
      const socket = send(own.port, before + head);
      const answers = answersOf(socket);
      if (before !== '') await own.slowBegun;
      await late;
      socket.write(rest + get('/store/b'));
      await sendRaw(own.port, get('/items/x'));
      own.release();
      expect(statusesOf(await answers)).toEqual(all);
      await new Promise((resolve) => setTimeout(resolve, 50));
      expect(own.begun).toEqual(before === '' ? [] : ['POST slow']);
    },
  );

  it('is the last parsed request of its connection', async () => {
    await using own = await startStore({ requestTimeoutMs: 50 });
    const late = once(own.app.server, 'clientError');
    const socket = send(own.port, slow + put('a').slice(0, 20));
    const answers = answersOf(socket);
    await own.slowBegun;
    await late;
    socket.write(put('a').slice(20) + keep(get('/store/b')).repeat(5_000));
    for (let turn = 0; turn < 50; turn++) await sendRaw(own.port, get('/items/x'));
    expect(own.parsed()).toBe(0);
    own.release();
    expect(statusesOf(await answers)).toEqual([201, 408]);
  });

  it('because the server stopped reading for a client that reads no answers does not time out until it resumes', async () => {
    await using own = await startStore({ requestTimeoutMs: 100 }, (app) => {
      app.get('/big', async () => 'x'.repeat(24_000_000));
    });
    const accepted = once(own.app.server, 'connection') as Promise<[Socket]>;
    const late = once(own.app.server, 'clientError') as Promise<[{ code: string }]>;
    const socket = openRaw(own.port);
    const answers = answersOf(socket);
    socket.pause();
    socket.write(keep(get('/big')));
    const [peer] = await accepted;
    await expect.poll(() => peer.writableNeedDrain).toBe(true);
    socket.write(put('a') + put('b').slice(0, 20));
    expect((await late)[0].code).toBe('ERR_HTTP_REQUEST_TIMEOUT');
    expect(peer.isPaused()).toBe(true);
    expect(own.begun).toEqual([]);
    socket.resume();
    await once(socket, 'data');
    socket.write(put('b').slice(20) + get('/store/b'));
    expect(statusesOf(await answers)).toEqual([200, 201, 201, 200]);
  });

  it.each([
    ['the rest arrives', '}', [201, 201, 404], ['POST slow', 'PUT a', 'GET b']],
    ['the rest does not arrive', '', [201, 408], ['POST slow']],
  ])('gets its full time when its turn comes: %s', async (_what, rest, all, begun) => {
    await using own = await startStore({ requestTimeoutMs: 300 });
    const late = once(own.app.server, 'clientError');
    const socket = send(own.port, slow + put('a').slice(0, -1));
    const answers = answersOf(socket);
    await own.slowBegun;
    await late;
    own.release();
    if (rest !== '') {
      await once(socket, 'data');
      socket.write(rest + get('/store/b'));
    }
    expect(statusesOf(await answers)).toEqual(all);
    expect(own.begun).toEqual(begun);
  });
});
