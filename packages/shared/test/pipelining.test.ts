import { once } from 'node:events';
import type { Socket } from 'node:net';
import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { openRaw, sendRaw } from './raw-http.ts';
import { get, JSON_TYPE, post } from './started-server.ts';
import {
  answersOf,
  keep,
  put,
  remove,
  type Store,
  send,
  server,
  slow,
  startStore,
  statusesOf,
  useStoreServer,
} from './store-server.ts';

useStoreServer();

describe('requests that do not wait for the answer before them', () => {
  it('are dropped, and that answer ends the connection, so that their client repeats them', async () => {
    const answers = await answersOf(send(server.port, put('a') + remove('a') + keep(get('/store/a'))));
    expect(statusesOf(answers)).toEqual([201]);
    expect(answers[0]?.headers['connection']).toBe('close');
    expect(server.items.has('a')).toBe(true);
  });

  it('are dropped as well when they arrive in pieces, and delay no other connection', async () => {
    await using own = await startStore();
    const socket = send(own.port, slow);
    socket.setNoDelay(true);
    const answers = answersOf(socket);
    await own.slowBegun;
    for (const byte of put('a') + keep(get('/store/a'))) {
      socket.write(byte);
      await new Promise(setImmediate);
    }
    expect((await sendRaw(own.port, get('/items/x'))).status).toBe(200);
    own.release();
    expect(statusesOf(await answers)).toEqual([201]);
    expect(own.begun).toEqual(['POST slow']);
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
    const answers = answersOf(socket).catch(() => []);
    socket.write(slow);
    await own.slowBegun;
    return { socket, answers };
  }

  const chunked = `POST /items HTTP/1.1\r\nHost: x\r\n${JSON_TYPE}Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n`;

  it.each([
    ['small ones', keep(get('/items/a'))],
    ['those with large heads', keep(get('/items/a', `X: ${'a'.repeat(15_000)}\r\n`))],
    ['those with bodies', keep(post(' '.repeat(60_000), JSON_TYPE))],
    ['those whose bodies have no known length', chunked],
  ])('leave the answer whole up to sixteen of them: %s', async (_what, one) => {
    await using own = await startStore();
    const { socket, answers } = await held(own);
    socket.write(one.repeat(16));
    await expect.poll(own.parsed).toBe(16);
    own.release();
    const [answer, ...more] = await answers;
    expect([answer?.status, answer?.headers['connection'], more]).toEqual([201, 'close', []]);
    expect(own.begun).toEqual(['POST slow']);
  });

  it('close the connection at once when there are more than sixteen', async () => {
    await using own = await startStore();
    const { socket, answers } = await held(own);
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.write(keep(get('/items/a')).repeat(5_000));
    await closed;
    expect(await answers).toEqual([]);
    expect(own.begun).toEqual(['POST slow']);
    own.release();
  });

  it('let a started answer end, which then closes the connection', async () => {
    const [begun, rest] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    await using own = await startStore({}, (app) => {
      app.get('/stream', async (_request, reply) =>
        reply.send(
          Readable.from(
            (async function* () {
              yield 'a'.repeat(100_000);
              begun.resolve();
              await rest.promise;
              yield 'b'.repeat(100_000);
            })(),
          ),
        ),
      );
    });
    const socket = send(own.port, keep(get('/stream')));
    const text = new Promise<string>((resolve) => {
      let all = '';
      socket.on('data', (bytes) => {
        all += bytes;
      });
      socket.once('end', () => resolve(all));
    });
    await begun.promise;
    await once(socket, 'data');
    socket.write(put('a'));
    await expect.poll(own.parsed).toBe(2);
    rest.resolve();
    expect([...(await text).matchAll(/b/g)]).toHaveLength(100_000);
    expect(await text).toMatch(/0\r\n\r\n$/);
    expect(own.begun).toEqual([]);
  });
});

describe('requests of one connection', () => {
  it('are all served when each waits for the answer before it', async () => {
    const socket = openRaw(server.port);
    for (let n = 0; n < 300; n++) {
      socket.write(keep(get('/items/x')));
      const [bytes] = (await once(socket, 'data')) as [Buffer];
      expect(bytes.toString()).toMatch(/^HTTP\/1\.1 200 /);
    }
    socket.destroy();
  });

  it('begin after an answer that is complete and not sent yet', async () => {
    await using own = await startStore({}, (app) => {
      app.get('/large', async () => 'x'.repeat(24_000_000));
    });
    const accepted = once(own.app.server, 'connection') as Promise<[Socket]>;
    const socket = openRaw(own.port);
    const answers = answersOf(socket);
    socket.pause();
    socket.write(keep(get('/large')));
    const [peer] = await accepted;
    await expect.poll(() => peer.writableNeedDrain).toBe(true);
    socket.write(put('a'));
    socket.resume();
    await expect.poll(() => own.begun).toEqual(['PUT a']);
    socket.end();
    expect(statusesOf(await answers)).toEqual([200, 201]);
  });
});
