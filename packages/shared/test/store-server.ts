import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { afterAll, beforeAll } from 'vitest';
import { openRaw, parseAnswer, type RawAnswer, readAll } from './raw-http.ts';
import { get, JSON_TYPE, post, type Running, start } from './started-server.ts';

/** A server whose requests create and remove items, with a log of the requests that began, in order. */
export interface Store extends Running {
  readonly items: Set<string>;
  readonly begun: string[];
  /** How many requests were parsed, except those for `/slow` and `/items/x`. */
  readonly parsed: () => number;
  /** Releases `/slow`. */
  readonly release: () => void;
  readonly slowBegun: Promise<void>;
}

export async function startStore(
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

export const keep = (bytes: string) => bytes.replace('Connection: close\r\n', '');

export const put = (id: string) =>
  `PUT /store/${id} HTTP/1.1\r\nHost: x\r\n${JSON_TYPE}Content-Length: 2\r\n\r\n{}`;

export const remove = (id: string) => keep(get(`/store/${id}`)).replace('GET', 'DELETE');
export const slow = keep(post('{}', JSON_TYPE, '/slow'));

export function send(port: number, bytes: string): Socket {
  const socket = openRaw(port);
  socket.on('error', () => undefined);
  socket.write(bytes);
  return socket;
}

export async function answersOf(socket: Socket): Promise<RawAnswer[]> {
  const text = await readAll(socket);
  return text === '' ? [] : text.split(/(?=HTTP\/1\.1 \d)/).map(parseAnswer);
}

export const statusesOf = (answers: readonly RawAnswer[]) => answers.map(({ status }) => status);
export let server: Store;

/** Call it in a file: its tests share a server. */
export function useStoreServer(): void {
  beforeAll(async () => {
    server = await startStore();
  });
  afterAll(() => server[Symbol.asyncDispose]());
}
