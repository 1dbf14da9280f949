import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { type ParsedSocket, ReadAhead, readInVain } from './read-ahead.ts';

/** How long a connection that we have ended may stay open for what we wrote to arrive, milliseconds. */
const ENDED_LINGER_MS = 500;

/** How long, and how many bytes, a refused body is read in vain: milliseconds. */
const REFUSED_LINGER_MS = 5_000;
const REFUSED_BYTES_MAX = 67_108_864;

const LATEST = Symbol('latest response');
const READ_AHEAD = Symbol('what is read ahead');
const FAULTY = Symbol('faulty');
const OVERDUE = Symbol('overdue while it waited');
const TIMED = Symbol('timed from its turn');
const TIMER = Symbol('timer of the request that is timed from its turn');

/** A connection of a server. Its state lies on the socket: a map would cost each request a look-up. */
export interface ServedSocket extends ParsedSocket {
  /** The response to the latest request that was parsed from the connection. */
  [LATEST]?: ServerResponse;
  /** Set once a request waits for its turn. */
  [READ_AHEAD]?: ReadAhead;
  /**
   * Set at the first fault: bytes that are no HTTP, or that came too late. Nothing behind them is a request.
   */
  [FAULTY]?: boolean;
  [TIMER]?: NodeJS.Timeout;
}

interface ServedRequest extends IncomingMessage {
  /** While it waited, the time ran out for the head behind it. Node tells so once. */
  [OVERDUE]?: boolean;
  /** Its time runs from when its turn came. */
  [TIMED]?: boolean;
  /** The fault of its connection lies in its body. */
  [FAULTY]?: boolean;
}

type Begin = (request: IncomingMessage, response: ServerResponse) => void;

/**
 * Begins the requests of a connection one after the other: each once the answer before it has ended, so that
 * pipelined requests take effect in their order (RFC 9112, section 9.3.2). Node begins all of them at once
 * and only orders their answers.
 *
 * A client may end its half of the connection behind its last request and still gets every answer.
 *
 * To be called while the server's one listener is who begins the requests. Others see each request when it
 * has arrived.
 *
 * @param waitingBytesMax of the requests that wait for their turn, all connections together.
 */
export function beginInOrder(server: Server, waitingBytesMax: number): void {
  const readAhead = new ReadAhead(server, waitingBytesMax);
  const [begin, ...others] = server.listeners('request') as Begin[];
  if (begin === undefined || others.length > 0) throw new Error('one listener begins the requests');
  server.removeAllListeners('request');
  // Node would end our half as well, and with it the answers that are not written yet.
  (server as Server & { httpAllowHalfOpen: boolean }).httpAllowHalfOpen = true;
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    const socket = request.socket as ServedSocket;
    socket[LATEST] = response;
    // Node gives a response its socket once the response before it has ended.
    if (response.socket === null) waitForTurn(socket, request, response, { readAhead, begin });
    else begin(request, response);
  });
}

function waitForTurn(
  socket: ServedSocket,
  request: ServedRequest,
  response: ServerResponse,
  { readAhead, begin }: { readonly readAhead: ReadAhead; readonly begin: Begin },
): void {
  if (socket[READ_AHEAD] === undefined) {
    socket[READ_AHEAD] = readAhead;
    socket.once('close', () => clearTimeout(socket[TIMER]));
  }
  readAhead.add(socket, request);
  response.once('socket', () => {
    readAhead.remove(socket, request);
    // Node still flushes the response in this turn.
    process.nextTick(() => {
      // A request whose body turned out to be faulty has no effect: `whenItsTurn` answers in its place.
      if (socket.destroyed || request[FAULTY] === true) return;
      if (!request.complete || request[OVERDUE] === true) timeFromNow(socket, request, response);
      begin(request, response);
    });
  });
}

/**
 * Tells of a timeout when the rest of a request, or of the head behind it, has not arrived in the time of a
 * whole request.
 */
function timeFromNow(socket: ServedSocket, request: ServedRequest, response: ServerResponse): void {
  const { server } = socket as Socket & { readonly server: Server };
  request[TIMED] = true;
  // The one before is in whole, or this one would not have been parsed.
  clearTimeout(socket[TIMER]);
  socket[TIMER] = setTimeout(() => {
    request[TIMED] = false;
    if (socket[LATEST] !== response || (request.complete && request[OVERDUE] !== true)) return;
    server.emit(
      'clientError',
      Object.assign(new Error('late'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' }),
      socket,
    );
  }, server.requestTimeout).unref();
}

/**
 * Whether a timeout does not count: while the latest request waits, we may be the ones who do not read. Its
 * time runs from when its turn comes.
 */
export function isHeldUp(socket: ServedSocket): boolean {
  const latest = socket[LATEST];
  if (latest === undefined || socket[FAULTY] === true) return false;
  const request = latest.req as ServedRequest;
  if (latest.socket !== null || latest.writableEnded)
    return request[TIMED] === true && (!request.complete || request[OVERDUE] === true);
  // With the request in whole, and the connection read, it is the client who does not send the head behind
  // it.
  if (request.complete && !socket.isPaused()) return false;
  request[OVERDUE] = request.complete;
  return true;
}

/**
 * Throws away what still arrives of a body, and lets it fail when the connection closes: anyone who reads it
 * must not take it for whole, as its client gets another answer.
 */
function neverEnd(request: ServedRequest): void {
  request[FAULTY] = true;
  request.push = () => true;
}

/**
 * Calls `answer` when what it writes is taken for the answer to the bytes at fault: behind the answers to all
 * requests that arrived in whole before them. Those may have taken effect, and keep their answers. Only the
 * first fault of a connection counts.
 *
 * `answer` is not called when the connection ends before, or the request at fault has its answer already.
 */
export function whenItsTurn(socket: ServedSocket, answer: () => void): void {
  if (socket[FAULTY] === true) return;
  socket[FAULTY] = true;
  socket[READ_AHEAD]?.release(socket);
  readInVain(socket);
  const latest = socket[LATEST];
  if (latest?.req.complete === false) neverEnd(latest.req);
  const answerIfOpen = (): void => {
    if (socket.writable) answer();
  };
  // An answer that has ended is in the socket as a whole, if not on the wire.
  if (latest === undefined || (latest.writableEnded && latest.req.complete)) answer();
  // Once it has finished it is late: Node has ended our half by then, where the client has ended its own.
  else if (latest.req.complete) latest.once('prefinish', answerIfOpen);
  // The fault lies in the body of the latest request.
  else if (latest.writableEnded) endSoon(socket);
  else if (latest.socket === null) latest.once('socket', () => process.nextTick(answerIfOpen));
  else if (latest.headersSent) socket.destroy();
  else answer();
}

/**
 * Ends our half of a connection, behind `bytes`, and soon the whole: Node lets the client keep its half for
 * as long as it likes.
 */
export function endSoon(socket: Socket, bytes = ''): void {
  socket.end(bytes);
  const timer = setTimeout(() => socket.destroy(), ENDED_LINGER_MS).unref();
  socket.once('close', () => clearTimeout(timer));
}

/**
 * Has a connection read in vain behind the answer that ends it (RFC 9112, section 9.6). Closed while a body
 * still arrives, it would be reset: the client would lose the answer, and a proxy would answer 502.
 *
 * To be called before the answer is written.
 */
export function lingerBehindAnswer(socket: Socket): void {
  socket.destroySoon = () => {
    const end = socket.bytesRead + REFUSED_BYTES_MAX;
    socket.end();
    readInVain(socket);
    socket.on('data', () => {
      if (socket.bytesRead > end) socket.destroy();
    });
    const timer = setTimeout(() => socket.destroy(), REFUSED_LINGER_MS).unref();
    socket.once('close', () => clearTimeout(timer));
  };
}

/**
 * Calls `onGone` once the client cannot want more of an answer that may never end: its connection has closed,
 * or it ended its half of it, as one does that goes away.
 */
export function onceGone(response: ServerResponse, onGone: () => void): void {
  const { socket } = response.req;
  let isTold = false;
  const tell = (): void => {
    if (isTold) return;
    isTold = true;
    socket.off('end', tell);
    onGone();
  };
  response.once('close', tell);
  socket.once('end', tell);
  if (socket.readableEnded || response.destroyed) tell();
}
