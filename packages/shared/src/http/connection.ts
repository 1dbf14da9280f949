import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { connectionOf } from './connection-limit.ts';
import type { LoopTurns } from './loop-turns.ts';

/** How long a connection stays open after we ended it, so that our last bytes can arrive, milliseconds. */
const ENDED_LINGER_MS = 500;

/** How long the rest of a refused body is read and discarded, milliseconds; and how many bytes. */
const REFUSED_LINGER_MS = 5_000;
const REFUSED_BYTES_MAX = 67_108_864;

/** Requests of a connection that are dropped before it is closed at once. Each takes time to parse. */
export const DROPPED_MAX = 16;

const LATEST = Symbol('latest response');
const DROPPED = Symbol('dropped requests');
const FAULTY = Symbol('faulty');

/**
 * A connection of a server. Its state is stored on the socket, because a map would cost each request a
 * look-up.
 */
export interface ServedSocket extends Socket {
  /** The response to the latest request that was not dropped. */
  [LATEST]?: ServerResponse;
  /** How many requests were dropped, because they came before the answer to an earlier one. */
  [DROPPED]?: number;
  /**
   * Set at the first fault: bytes that are not HTTP, or that came too late. Nothing after them is a request.
   */
  [FAULTY]?: boolean;
}

interface ServedRequest extends IncomingMessage {
  /** The fault of its connection is in its body. */
  [FAULTY]?: boolean;
}

/** A listener of a server's requests. */
export type Begin = (request: IncomingMessage, response: ServerResponse) => void;

/**
 * Begins one request of a connection at a time. A request that arrives before the previous answer has ended
 * is dropped, and that answer ends the connection. So a pipelining client repeats what was not answered (RFC
 * 9112, section 9.3.2). Node alone would begin all of them at once and only order their answers.
 *
 * @param turns those in which requests of all connections begin.
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
    // Node flushes the response later in this turn.
    else response.once('socket', () => process.nextTick(awaitTurn));
  };
}

/** Reads the body of a request in vain, if there is one. @param before the latest answer. */
function drop(socket: ServedSocket, request: IncomingMessage, before: ServerResponse | undefined): void {
  request.resume();
  const dropped = (socket[DROPPED] ?? 0) + 1;
  socket[DROPPED] = dropped;
  if (dropped > DROPPED_MAX) socket.destroy();
  else if (dropped === 1 && before?.writableEnded === false) endAfter(before);
}

/** Lets an answer end its connection. */
function endAfter(response: ServerResponse): void {
  const { socket } = response.req;
  if (response.headersSent) response.once('finish', () => endSoon(socket));
  else {
    response.setHeader('connection', 'close');
    lingerBehindAnswer(response.req);
  }
}

/**
 * Calls `answer` for bytes that are not HTTP or came too late, unless a complete request before them is not
 * answered yet: its answer ends the connection then, and the bytes are dropped. Only the first fault of a
 * connection counts.
 *
 * It does not call `answer` either when the faulty request has been answered already.
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
 * Discards the rest of a body, and lets it fail when the connection closes. A reader must not mistake it for
 * complete, because the client gets another answer.
 */
function neverEnd(request: ServedRequest): void {
  request[FAULTY] = true;
  request.push = () => true;
  request.resume();
}

/**
 * Ends our half of a connection after `bytes`, and soon the whole connection. Node would let the client keep
 * its half open forever.
 */
export function endSoon(socket: Socket, bytes = ''): void {
  socket.end(bytes);
  const timer = setTimeout(() => socket.destroy(), ENDED_LINGER_MS).unref();
  socket.once('close', () => clearTimeout(timer));
}

/**
 * Makes a connection discard input after the answer that ends it (RFC 9112, section 9.6). If it closed while
 * a body still arrives, it would be reset: the client would lose the answer, and a proxy would answer 502.
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
