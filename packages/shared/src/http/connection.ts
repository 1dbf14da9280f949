import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { connectionOf } from './connection-limit.ts';
import type { LoopTurns } from './loop-turns.ts';

/** How long a connection stays open after we have ended our half, so that our last bytes arrive. */
const ENDED_LINGER_MS = 500;

/** For how long the rest of a refused body is discarded, milliseconds, and at most how many bytes. */
const REFUSED_LINGER_MS = 5_000;
const REFUSED_BYTES_MAX = 67_108_864;

/** A connection closes at once after this many dropped requests, because each takes time to parse. */
export const DROPPED_MAX = 16;

const LATEST = Symbol('latest response');
const DROPPED = Symbol('dropped requests');
const FAULTY = Symbol('faulty');

/**
 * A connection of a server. The socket stores its state, because a map would cost each request a look-up.
 */
export interface ServedSocket extends Socket {
  /** The response to the latest request that was not dropped. */
  [LATEST]?: ServerResponse;
  /** Number of requests that were dropped because an earlier one was not answered yet. */
  [DROPPED]?: number;
  /** Set when bytes are not HTTP or come too late. Bytes after them are never read as a request. */
  [FAULTY]?: boolean;
}

interface ServedRequest extends IncomingMessage {
  /** Whether the fault of its connection is in its body. */
  [FAULTY]?: boolean;
}

/** A listener of a server's requests. */
export type Begin = (request: IncomingMessage, response: ServerResponse) => void;

/**
 * Begins one request of a connection at a time. A request that arrives before the previous answer has ended
 * is dropped, and that answer ends the connection. So a client that pipelines repeats its unanswered requests
 * (RFC 9112, section 9.3.2). Node alone would begin all of them at once and only order their answers.
 *
 * @param turns decide when requests of all connections begin.
 */
export function oneAtATime(begin: Begin, turns: LoopTurns): Begin {
  return (request, response) => {
    const socket = request.socket as ServedSocket;
    const before = socket[LATEST];
    if (before?.writableEnded === false || socket[FAULTY] === true || socket.writableEnded) {
      drop(socket, request, before);
      return;
    }
    socket[LATEST] = response;
    // Node assigns the socket to a response once the answer before it is sent.
    const isNext = response.socket !== null;
    if (isNext && turns.mayBegin()) {
      begin(request, response);
      return;
    }
    const beginHeld = (): void => {
      if (!socket.destroyed && (request as ServedRequest)[FAULTY] !== true) begin(request, response);
    };
    const awaitTurn = (): void => turns.begin(connectionOf(socket)?.turn ?? '', beginHeld);
    if (isNext) awaitTurn();
    // Node flushes the response only later in this turn.
    else response.once('socket', () => process.nextTick(awaitTurn));
  };
}

/** Drops a request and discards its body. @param before the answer to the latest other request. */
function drop(socket: ServedSocket, request: IncomingMessage, before: ServerResponse | undefined): void {
  request.resume();
  const dropped = (socket[DROPPED] ?? 0) + 1;
  socket[DROPPED] = dropped;
  if (dropped > DROPPED_MAX) socket.destroy();
  else if (dropped === 1 && before?.writableEnded === false) endAfter(before);
}

/** Makes an answer end its connection. */
function endAfter(response: ServerResponse): void {
  const { socket } = response.req;
  if (response.headersSent) response.once('finish', () => endSoon(socket));
  else {
    response.setHeader('connection', 'close');
    lingerBehindAnswer(response.req);
  }
}

/**
 * Handles bytes that are not HTTP or come too late. If a complete request before them waits for its answer,
 * that answer ends the connection, and the bytes are dropped. Otherwise this function calls `answer`, unless
 * the faulty request has its answer already.
 *
 * Only the first fault of a connection counts.
 */
export function atFault(socket: ServedSocket, answer: () => void): void {
  if (socket[FAULTY] === true) return;
  socket[FAULTY] = true;
  const latest = socket[LATEST];
  // An answer that has ended is completely in the socket, even if it is not sent yet.
  if (latest === undefined || (latest.writableEnded && latest.req.complete)) answer();
  else if (latest.req.complete) endAfter(latest);
  // The fault is in the body of the latest request.
  else {
    neverEnd(latest.req);
    if (latest.writableEnded) endSoon(socket);
    else if (latest.headersSent) socket.destroy();
    else answer();
  }
}

/**
 * Discards the rest of a body. Its reader gets an error when the connection closes. It must never get the end
 * of the body, because the client gets another answer.
 */
function neverEnd(request: ServedRequest): void {
  request[FAULTY] = true;
  request.push = () => true;
  request.resume();
}

/**
 * Sends `bytes`, ends our half of the connection, and soon closes all of it. Node would let the client keep
 * its half open forever.
 */
export function endSoon(socket: Socket, bytes = ''): void {
  socket.end(bytes);
  const timer = setTimeout(() => socket.destroy(), ENDED_LINGER_MS).unref();
  socket.once('close', () => clearTimeout(timer));
}

/**
 * Makes a connection discard its input after the answer that ends it (RFC 9112, section 9.6). If it closed
 * while a body still arrives, the client would get a reset and lose the answer. A proxy would answer 502.
 *
 * Call it before the answer is written.
 */
export function lingerBehindAnswer(request: IncomingMessage): void {
  const { socket } = request;
  socket.destroySoon = () => {
    const end = socket.bytesRead + REFUSED_BYTES_MAX;
    socket.end();
    request.on('data', () => {
      if (socket.bytesRead > end) socket.destroy();
    });
    const timer = setTimeout(() => socket.destroy(), REFUSED_LINGER_MS).unref();
    socket.once('close', () => clearTimeout(timer));
  };
}
