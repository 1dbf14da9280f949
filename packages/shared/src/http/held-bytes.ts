import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { AppError } from '../errors.ts';

/** Bytes of room that a request's body takes. */
const HELD = Symbol('held bytes');

/** Bytes of room that are kept for the answer of a write. */
const RESERVED = Symbol('reserved bytes');

declare module 'fastify' {
  interface FastifyRequest {
    [HELD]?: number;
    [RESERVED]?: number;
  }

  interface FastifyContextConfig {
    /** A POST that changes nothing. */
    isRead?: boolean;
  }
}

/** Part of the `config` of a POST that changes nothing. */
export const READ = { isRead: true } as const;

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

/** Room for answers that their clients have not taken yet, and for those that writes will have. */
class AnswerRoom {
  readonly #heldBytesMax: number;
  readonly #bySocket = new WeakMap<Socket, number>();
  #heldBytes = 0;

  constructor(heldBytesMax: number) {
    this.#heldBytesMax = heldBytesMax;
  }

  hasRoom(bytes: number): boolean {
    return this.#heldBytes === 0 || this.#heldBytes + bytes <= this.#heldBytesMax;
  }

  reserve(request: FastifyRequest, bytes: number): void {
    if (bytes < COUNTED_ANSWER_BYTES_MIN) return;
    if (!this.hasRoom(bytes)) throw new AppError('overloaded');
    request[RESERVED] = (request[RESERVED] ?? 0) + bytes;
    this.#heldBytes += bytes;
  }

  giveBack(request: FastifyRequest): void {
    this.#heldBytes -= request[RESERVED] ?? 0;
    request[RESERVED] = 0;
  }

  /** Until the last byte is handed to the system, or the connection is closed. */
  hold(socket: Socket, response: ServerResponse, bytes: number): void {
    // An answer that waits behind another of its connection hears nothing of the end of that connection.
    if (!this.#bySocket.has(socket))
      socket.once('close', () => {
        this.#heldBytes -= this.#bySocket.get(socket) ?? 0;
        this.#bySocket.delete(socket);
      });
    this.#bySocket.set(socket, (this.#bySocket.get(socket) ?? 0) + bytes);
    this.#heldBytes += bytes;
    response.once('finish', () => this.#release(socket, bytes));
  }

  #release(socket: Socket, bytes: number): void {
    const ofSocket = this.#bySocket.get(socket);
    if (ofSocket === undefined) return; // Closed, and given back as a whole.
    this.#bySocket.set(socket, ofSocket - bytes);
    this.#heldBytes -= bytes;
  }
}

/**
 * Refuses an answer for which there is no room among those that their clients have not taken yet: 503 `overloaded` in its place. Without
 * it, one client could ask on many connections, many times on each, and read nothing.
 *
 * Only the answer of a read is refused. A write has taken effect by then: one whose answer may be large calls {@link reserveAnswer}
 * before it begins.
 */
export function boundHeldAnswers(app: FastifyInstance, heldBytesMax: number): void {
  const room = new AnswerRoom(heldBytesMax);
  rooms.set(app.server, room);
  app.addHook('onSend', (request, reply, payload, done) => {
    if (request[RESERVED] !== undefined) room.giveBack(request);
    const bytes = typeof payload === 'string' || Buffer.isBuffer(payload) ? Buffer.byteLength(payload) : 0;
    const { socket } = request.raw;
    if (bytes < COUNTED_ANSWER_BYTES_MIN || socket.destroyed) {
      done(null, payload);
      return;
    }
    if (isRead(request) && !room.hasRoom(bytes)) {
      done(new AppError('overloaded'));
      return;
    }
    room.hold(socket, reply.raw, bytes);
    done(null, payload);
  });
}

const rooms = new WeakMap<object, AnswerRoom>();

/**
 * Keeps room for the largest answer that a write may have, before it begins. Its answer, or refusal, gives the room back.
 *
 * @throws AppError `overloaded`: nothing was begun.
 */
export function reserveAnswer(request: FastifyRequest, bytesMax: number): void {
  rooms.get(request.server.server)?.reserve(request, bytesMax);
}

/** Whether a refusal in the place of the answer is true: nothing has changed. */
function isRead({ method, routeOptions }: FastifyRequest): boolean {
  return method === 'GET' || method === 'HEAD' || routeOptions.config.isRead === true;
}
