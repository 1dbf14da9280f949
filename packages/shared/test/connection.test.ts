import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { describe, expect, it } from 'vitest';
import { EventStream } from '../src/http/event-stream.ts';
import { openRaw, parseAnswer, type RawAnswer, sendRaw } from './raw-http.ts';
import { expectProblem, get, JSON_TYPE, start } from './started-server.ts';
import {
  answersOf,
  keep,
  put,
  send,
  server,
  slow,
  startStore,
  statusesOf,
  useStoreServer,
} from './store-server.ts';

useStoreServer();

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
