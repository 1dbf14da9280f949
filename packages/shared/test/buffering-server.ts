import { once } from 'node:events';
import type { Socket } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { afterEach, expect, vi } from 'vitest';
import { createGate } from '../src/admission/gate.ts';
import { Pool, type PoolOptions } from '../src/admission/pool.ts';
import { CutOffs } from '../src/http/cut-offs.ts';
import { assignShare } from '../src/http/guard.ts';
import { createHttpShares, type HttpShares } from '../src/http/http-shares.ts';
import { systemClock } from '../src/runtime/clock.ts';
import { openRaw } from './raw-http.ts';
import { JSON_TYPE, type Running, start } from './started-server.ts';

export const BODY_BYTES_MAX = 16_000_000;
export const OTHER = { subject: 'other', project: 'p' };
export const sockets: Socket[] = [];

/** The shares of a server with so many bytes at the gate, and beyond them what the options say. */
export function sharesOf(options: Partial<PoolOptions> & { readonly capacity: number }): HttpShares {
  const gate = createGate(systemClock, options.capacity);
  const bytes = new Pool({ name: 'bytes', clock: systemClock, accounts: gate.accounts, ...options });
  return { ...createHttpShares(), gate: { ...gate, bytes }, cutOffs: new CutOffs(bytes) };
}

/** A server whose clients name their share in a header. */
export function startWith(shares: HttpShares, routes: (app: FastifyInstance) => void = () => undefined) {
  return start({ shares, bodyBytesMax: BODY_BYTES_MAX, closeGraceMs: 0 }, (app) => {
    app.addHook('onRequest', (request, _reply, done) => {
      const { subject } = request.headers;
      if (typeof subject === 'string') assignShare(request, { subject, project: 'p' });
      done();
    });
    app.post('/bodies', async (request) => ({ bytes: (request.body as Buffer).length }));
    routes(app);
  });
}

export const headOf = (bytes: number, subject: string) =>
  `POST /bodies HTTP/1.1\r\nHost: x\r\nConnection: close\r\nSubject: ${subject}\r\nContent-Length: ${bytes}\r\n${JSON_TYPE}\r\n`;

/**
 * Starts a client that announces a body and sends a part of it. Resolves once the server holds bytes for it,
 * or it waits for them.
 */
export async function begun(
  server: Running,
  { gate: { bytes } }: HttpShares,
  announced: number,
  sent: number,
  subject = 'slow',
) {
  const before = bytes.held + bytes.waiting;
  const socket = openRaw(server.port);
  sockets.push(socket);
  socket.on('error', () => undefined);
  const met = once(server.app.server, 'request');
  socket.write(headOf(announced, subject));
  await met;
  socket.write('x'.repeat(sent));
  await expect.poll(() => bytes.held + bytes.waiting).toBeGreaterThan(before);
  return socket;
}

/** Call it in a file: the clients of a test disconnect at its end. */
export function useBufferBudgets(): void {
  afterEach(() => {
    vi.useRealTimers();
    for (const socket of sockets.splice(0)) socket.destroy();
  });
}
