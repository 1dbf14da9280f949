import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EventStream } from '../src/http/event-stream.ts';
import { openRaw, parseAnswer, type RawAnswer, readAll, sendRaw } from './raw-http.ts';
import { expectProblem, get, JSON_TYPE, post, type Running, start } from './started-server.ts';

/** Items that requests make and remove; what each request has begun, in order. */
interface Store extends Running {
  readonly items: Set<string>;
  readonly begun: string[];
  /** Lets go of `/slow`. */
  readonly release: () => void;
  readonly slowBegun: Promise<void>;
}

async function startStore(options: Parameters<typeof start>[0] = {}): Promise<Store> {
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
  });
  return { ...running, items, begun, release: released.resolve, slowBegun: slow.promise };
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

  it('take effect in their order when they arrive a byte at a time', async () => {
    const socket = openRaw(server.port);
    socket.setNoDelay(true);
    const answers = answersOf(socket);
    for (const byte of put('b') + keep(get('/store/b')) + remove('b') + get('/store/b')) {
      socket.write(byte);
      await new Promise(setImmediate);
    }
    expect(statusesOf(await answers)).toEqual([201, 200, 204, 404]);
  });

  it('begin when the answer before has ended, and hold up no other connection', async () => {
    await using own = await startStore();
    const socket = send(own.port, slow + put('a') + get('/store/a'));
    await own.slowBegun;
    expect((await sendRaw(own.port, get('/items/x'))).status).toBe(200);
    expect(own.begun).toEqual(['POST slow']);
    own.release();
    expect(statusesOf(await answersOf(socket))).toEqual([201, 201, 200]);
    expect(own.begun).toEqual(['POST slow', 'PUT a', 'GET a']);
  });

  it('do not begin behind an answer that ends the connection', async () => {
    await using own = await startStore();
    const socket = send(own.port, slow.replace('Host: x', 'Host: x\r\nConnection: close') + put('a'));
    await own.slowBegun;
    own.release();
    expect(statusesOf(await answersOf(socket))).toEqual([201]);
    expect(own.begun).toEqual(['POST slow']);
  });

  it('do not begin once the client has gone', async () => {
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

  it('are read only so far ahead', async () => {
    await using own = await startStore();
    const socket = openRaw(own.port);
    socket.on('error', () => undefined);
    socket.write(slow);
    await own.slowBegun;
    let parsed = 0;
    own.app.server.prependListener('request', () => parsed++);
    const one = keep(get('/store/a'));
    const all = 8_000;
    const answers = answersOf(socket);
    socket.write(one.repeat(all));
    await expect.poll(() => parsed).toBeGreaterThan(8);
    for (let turn = 0; turn < 50; turn++) await sendRaw(own.port, get('/items/x'));
    // What one reading of the socket brings is parsed as a whole.
    expect(parsed).toBeLessThan(3_000);
    own.release();
    socket.write(get('/store/a'));
    expect(await answers).toHaveLength(all + 2);
  });
});

describe('bytes that are no HTTP, behind a request', () => {
  it('cost it neither its effect nor its answer: 201, then 400, then the end', async () => {
    const answers = await answersOf(send(server.port, `${put('c')}garbage\r\n\r\n`));
    expect(statusesOf(answers)).toEqual([201, 400]);
    expectProblem(answers[1] as RawAnswer, 'invalid_request');
    expect(answers[1]?.headers['connection']).toBe('close');
    expect(server.items.has('c')).toBe(true);
  });

  it('are refused behind every answer that is under way, and once', async () => {
    await using own = await startStore();
    const socket = send(own.port, `${slow}${put('a')}${keep(get('/store/a'))}garbage\r\n\r\n`);
    await own.slowBegun;
    socket.write('more garbage\r\n\r\n');
    own.release();
    expect(statusesOf(await answersOf(socket))).toEqual([201, 201, 200, 400]);
  });

  it('are refused as well where the client has ended its half behind them', async () => {
    await using own = await startStore();
    const socket = send(own.port, `${slow}garbage\r\n\r\n`);
    socket.end();
    await own.slowBegun;
    await sendRaw(own.port, get('/items/x'));
    own.release();
    expect(statusesOf(await answersOf(socket))).toEqual([201, 400]);
  });

  it('are dropped behind a request that ends the connection', async () => {
    const socket = send(server.port, `${put('d').replace('Host: x', 'Host: x\r\nConnection: close')}garbage`);
    expect(statusesOf(await answersOf(socket))).toEqual([201]);
  });

  it('refuse the request whose body they are, which has no effect, also where it waits for its turn', async () => {
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
  it('has gone for a stream that has no end of its own', async () => {
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

  it('gets the answers to all that it asked before', async () => {
    await using own = await startStore();
    const socket = send(own.port, slow + put('a') + keep(get('/store/a')));
    socket.end();
    await own.slowBegun;
    // The end has arrived when a later connection is answered.
    await sendRaw(own.port, get('/items/x'));
    own.release();
    expect(statusesOf(await answersOf(socket))).toEqual([201, 201, 200]);
  });

  it('in the midst of a body gets 400, and the request has no effect', async () => {
    const socket = send(server.port, put('f').slice(0, -1));
    socket.end();
    const answers = await answersOf(socket);
    expect(statusesOf(answers)).toEqual([400]);
    expect(server.items.has('f')).toBe(false);
  });
});

describe('a request that does not arrive in time', () => {
  it('and had its answer already ends the connection, also where the client goes on sending and keeps its half', async () => {
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

  it.each([
    ['the rest arrives', '}', [201, 201, 404], ['POST slow', 'PUT a', 'GET b']],
    ['the rest does not arrive', '', [201, 408], ['POST slow']],
  ])('has its full time from when its turn comes: %s', async (_what, rest, all, begun) => {
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
