import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { AppError } from '../errors.ts';

/** Bytes of room that a request's body takes. */
const HELD = Symbol('held bytes');

declare module 'fastify' {
  interface FastifyRequest {
    [HELD]?: number;
  }
}

/** Methods whose bodies Fastify never reads: whatever they announce is not held, and their answer may be a stream without an end. */
const BODILESS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'TRACE']);

/** Answers below this are not counted: Node stops reading from a connection long before many of them wait on it. */
const COUNTED_ANSWER_BYTES_MIN = 16_384;

/**
 * Refuses a body for which there is no room, before a byte of it is read: 503 `overloaded`. Without it, one client with many slow
 * connections could have a whole body held for each.
 *
 * A body takes its room by the length that it announces, one that announces none by the largest it may have, and
 * gives it back when the request is answered, whether or not the client is still there.
 *
 * @param bodyBytesMax for routes that have no limit of their own.
 */
export function boundHeldBodies(app: FastifyInstance, bodyBytesMax: number, heldBytesMax: number): void {
  let heldBytes = 0;
  // After every `onRequest` hook, so that nobody without a token takes room.
  app.addHook('preParsing', (request, _reply, payload, done) => {
    const limit = request.routeOptions.bodyLimit ?? bodyBytesMax;
    const bytes = BODILESS.has(request.method) ? 0 : Math.min(announcedBytes(request.raw) ?? limit, limit);
    if (bytes > 0 && heldBytes > 0 && heldBytes + bytes > heldBytesMax) {
      done(new AppError('overloaded'));
      return;
    }
    request[HELD] = bytes;
    heldBytes += bytes;
    done(null, payload);
  });
  app.addHook('onSend', (request, _reply, payload, done) => {
    heldBytes -= request[HELD] ?? 0;
    request[HELD] = 0;
    done(null, payload);
  });
}

/** Bytes of the body that a request announces; undefined when it has one of unknown length. */
function announcedBytes({ headers }: IncomingMessage): number | undefined {
  if (headers['transfer-encoding'] !== undefined) return undefined;
  return Number(headers['content-length'] ?? 0);
}

/**
 * Refuses an answer for which there is no room among those that their clients have not taken yet: 503 `overloaded` in its place. Without
 * it, one client could ask on many connections, many times on each, and read nothing.
 *
 * An answer gives its room back when its last byte is handed to the system, or its connection is closed.
 */
export function boundHeldAnswers(app: FastifyInstance, heldBytesMax: number): void {
  const bySocket = new WeakMap<Socket, number>();
  let heldBytes = 0;
  const release = (socket: Socket, bytes: number): void => {
    const ofSocket = bySocket.get(socket);
    if (ofSocket === undefined) return; // Closed, and given back as a whole.
    bySocket.set(socket, ofSocket - bytes);
    heldBytes -= bytes;
  };
  app.addHook('onSend', (request, reply, payload, done) => {
    const bytes = typeof payload === 'string' || Buffer.isBuffer(payload) ? Buffer.byteLength(payload) : 0;
    const { socket } = request.raw;
    if (bytes < COUNTED_ANSWER_BYTES_MIN || socket.destroyed) {
      done(null, payload);
      return;
    }
    if (heldBytes > 0 && heldBytes + bytes > heldBytesMax) {
      done(new AppError('overloaded'));
      return;
    }
    // An answer that waits behind another of its connection hears nothing of the end of that connection.
    if (!bySocket.has(socket))
      socket.once('close', () => {
        heldBytes -= bySocket.get(socket) ?? 0;
        bySocket.delete(socket);
      });
    bySocket.set(socket, (bySocket.get(socket) ?? 0) + bytes);
    heldBytes += bytes;
    reply.raw.once('finish', () => release(socket, bytes));
    done(null, payload);
  });
}
