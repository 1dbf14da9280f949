import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { describe, expect, it } from 'vitest';
import { EventStream } from '../src/http/event-stream.ts';
import { parseAnswer, type RawAnswer, sendRaw } from './raw-http.ts';
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
  it('change neither its effect nor its answer, which ends the connection', async () => {
    const answers = await answersOf(send(server.port, `${put('c')}garbage\r\n\r\n`));
    expect(statusesOf(answers)).toEqual([201]);
    expect(answers[0]?.headers['connection']).toBe('close');
    expect(server.items.has('c')).toBe(true);
  });

  it('are refused once when that is answered', async () => {
    const socket = send(server.port, put('c'));
    const answers = answersOf(socket);
    await once(socket, 'data');
    socket.write('garbage\r\n\r\n');
    socket.write('more garbage\r\n\r\n');
    expect(statusesOf(await answers)).toEqual([201, 400]);
    expectProblem((await answers)[1] as RawAnswer, 'invalid_request');
    expect((await answers)[1]?.headers['connection']).toBe('close');
  });

  it('are dropped as well when the client ends its half after them', async () => {
    await using own = await startStore();
    const socket = send(own.port, `${slow}garbage\r\n\r\n`);
    socket.end();
    await own.slowBegun;
    await sendRaw(own.port, get('/items/x'));
    own.release();
    expect(statusesOf(await answersOf(socket))).toEqual([201]);
  });

  it('are dropped after a request that ends the connection', async () => {
    const socket = send(server.port, `${put('d').replace('Host: x', 'Host: x\r\nConnection: close')}garbage`);
    expect(statusesOf(await answersOf(socket))).toEqual([201]);
  });

  it('bytes in the body of a request that are not HTTP make it fail without effect', async () => {
    await using own = await startStore();
    const chunked = `PUT /store/e HTTP/1.1\r\nHost: x\r\n${JSON_TYPE}Transfer-Encoding: chunked\r\n\r\nzz\r\n`;
    const answers = await answersOf(send(own.port, chunked));
    expect(statusesOf(answers)).toEqual([400]);
    expectProblem(answers[0] as RawAnswer, 'invalid_request');
    expect([own.begun, own.items.size]).toEqual([[], 0]);
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

  it('gets the answer to its request', async () => {
    await using own = await startStore();
    const socket = send(own.port, slow);
    socket.end();
    await own.slowBegun;
    // The FIN has arrived when a later connection is answered.
    await sendRaw(own.port, get('/items/x'));
    own.release();
    expect(statusesOf(await answersOf(socket))).toEqual([201]);
  });

  it('a client that ends its half of the connection in the middle of a body gets 400, without an effect', async () => {
    const socket = send(server.port, put('f').slice(0, -1));
    socket.end();
    const answers = await answersOf(socket);
    expect(statusesOf(answers)).toEqual([400]);
    expect(server.items.has('f')).toBe(false);
  });
});

describe('a request that does not arrive in time', () => {
  it('a late request that is answered already ends the connection, even if the client keeps sending', async () => {
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
    ['behind another, in its head', slow, put('a').slice(0, 20), put('a').slice(20), [201]],
  ])(
    '%s, has no effect, although the rest arrives late; it gets 408 unless another answer ends the connection',
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

  it('closes its connection when more than sixteen requests follow it', async () => {
    await using own = await startStore({ requestTimeoutMs: 50 });
    const late = once(own.app.server, 'clientError');
    const socket = send(own.port, slow + put('a').slice(0, 20));
    await own.slowBegun;
    await late;
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.write(put('a').slice(20) + keep(get('/store/b')).repeat(5_000));
    await closed;
    expect(own.begun).toEqual(['POST slow']);
    own.release();
  });
});
