import { once } from 'node:events';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { listen } from '../src/http/listen.ts';
import { AT_ONCE } from '../src/http/loop-turns.ts';
import { createHttpServer } from '../src/http/server.ts';
import { createLogger } from '../src/logs/logger.ts';
import { openRaw, readAnswer, sendRaw } from './raw-http.ts';
import { get, start } from './started-server.ts';

describe('a server with several listening sockets', () => {
  it('answers on the connections of all of them', async () => {
    await using server = await start();
    const listeners = new Set<unknown>();
    server.app.server.on('connection', (socket: Socket & { readonly _server?: unknown }) =>
      listeners.add(socket._server),
    );
    const answers = await Promise.all(
      Array.from({ length: 60 }, (_, n) => sendRaw(server.port, get(`/items/${n}`))),
    );
    expect(answers.map(({ body }) => body)).toEqual(answers.map((_, n) => JSON.stringify({ id: `${n}` })));
    // Chance decides which one gets a connection.
    expect(listeners.size).toBeGreaterThan(1);
  });

  it('does not listen on a port that is in use, although its own sockets share one', async () => {
    await using server = await start();
    const logger = createLogger({ service: 'bundoc', level: 'silent' });
    const other = createHttpServer({ logger, bodyBytesMax: 1_000 });
    await expect(listen(other, { host: '127.0.0.1', port: server.port, prefix: '' })).rejects.toThrow(
      /^port \d+ of 127\.0\.0\.1 is in use; stop what uses it, or set PORT$/,
    );
    await other.close();
  });

  it('names the variable of a host that is not of this machine, or that does not resolve', async () => {
    const logger = createLogger({ service: 'bundoc', level: 'silent' });
    for (const [host, fault] of [
      ['192.0.2.77', 'this machine has no address 192.0.2.77; name one that it has'],
      ['none.invalid', 'the host name none.invalid does not resolve; name an address of this machine'],
    ] as const) {
      const app = createHttpServer({ logger, bodyBytesMax: 1_000 });
      await expect(listen(app, { host, port: 0, prefix: 'BUNDOC_' })).rejects.toThrow(
        `BUNDOC_HOST: ${fault}`,
      );
      await app.close();
    }
  });

  it('closes only after the requests on all connections were answered, and frees its port', async () => {
    const arrived = Promise.withResolvers<void>();
    const mayAnswer = Promise.withResolvers<void>();
    let count = 0;
    const server = await start({}, (app) =>
      app.get('/slow', async () => {
        if (++count === 20) arrived.resolve();
        await mayAnswer.promise;
        return {};
      }),
    );
    const answers = Promise.all(Array.from({ length: 20 }, () => sendRaw(server.port, get('/slow'))));
    await arrived.promise;
    const order: string[] = [];
    const closed = server.app.close().then(() => order.push('closed'));
    void answers.then(() => order.push('answered'));
    await sleep(50);
    expect(order).toEqual([]);
    mayAnswer.resolve();
    expect((await answers).map(({ status }) => status)).toEqual(Array(20).fill(200));
    await closed;
    const socket = openRaw(server.port);
    const [error] = await once(socket, 'error');
    expect(error).toMatchObject({ code: 'ECONNREFUSED' });
  });
});

describe('requests that wait for a turn of the event loop', () => {
  /** Each takes a whole turn. */
  const busyServer = async () => {
    const begun: string[] = [];
    const server = await start({}, (app) =>
      app.get('/busy/:id', async ({ params }) => {
        begun.push((params as { id: string }).id);
        for (const end = performance.now() + 5; performance.now() < end; );
        return {};
      }),
    );
    return { server, begun };
  };

  it('are all answered', async () => {
    const { server, begun } = await busyServer();
    await using _closed = server;
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, n) => sendRaw(server.port, get(`/busy/${n}`))),
    );
    expect(answers.map(({ status }) => status)).toEqual(Array(20).fill(200));
    expect(begun.length).toBe(20);
  });

  it('have no effect when their client has gone before their turn', async () => {
    const { server, begun } = await busyServer();
    await using _closed = server;
    // Each has an answer already, so the server has accepted all of them.
    const sockets = await Promise.all(
      Array.from({ length: AT_ONCE + 10 }, async () => {
        const socket = openAfter(server.port, 'GET /items/1 HTTP/1.1\r\nHost: x\r\n\r\n');
        await once(socket, 'data');
        return socket;
      }),
    );
    const leaving = sockets.pop() as Socket;
    leaving.on('error', () => undefined);
    const arrived = Promise.withResolvers<void>();
    server.app.server.on('request', ({ url }: { readonly url: string }) => {
      if (url.endsWith('left')) arrived.resolve();
    });
    // Written at once, they arrive in one turn of the event loop, which is too much for it.
    const others = sockets.map((socket, n) => {
      socket.write(get(`/busy/${n}`));
      return readAnswer(socket);
    });
    leaving.write(get('/busy/left'));
    await arrived.promise;
    expect(begun).not.toContain('left');
    leaving.resetAndDestroy();
    await Promise.all(others);
    expect([begun.length, begun.includes('left')]).toEqual([sockets.length, false]);
  });
});

function openAfter(port: number, bytes: string): Socket {
  const socket = openRaw(port);
  socket.write(bytes);
  return socket;
}
