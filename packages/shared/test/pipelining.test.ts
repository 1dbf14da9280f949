import { once } from 'node:events';
import type { Socket } from 'node:net';
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
