import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/**
 * Requests of one connection that wait for their turn; with more, nothing further is read from it. With fewer it is read, so that it is
 * noticed when the client goes.
 */
const WAITING_MAX = 8;

/** How long a connection that we have ended may stay open for what we wrote to arrive, milliseconds. */
const ENDED_LINGER_MS = 500;

const LATEST = Symbol('latest response');
const WAITING = Symbol('requests that wait');
const FAULTY = Symbol('faulty');
const OVERDUE = Symbol('overdue while it waited');
const TIMED = Symbol('timed from its turn');
const TIMER = Symbol('timer of the request that is timed from its turn');

/** A connection of a server. Its state lies on the socket: a map would cost each request a look-up. */
export interface ServedSocket extends Socket {
  /** The response to the latest request that was parsed from the connection. */
  [LATEST]?: ServerResponse;
  /** How many requests wait for their turn; undefined until one does. */
  [WAITING]?: number;
  /** Set at the first fault: bytes that are no HTTP, or that came too late. Nothing behind them is a request. */
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
 * Begins the requests of a connection one after the other: each once the answer before it has ended, so that pipelined requests take
 * effect in their order (RFC 9112, section 9.3.2). Node begins all of them at once and only orders their answers.
 *
 * A client may end its half of the connection behind its last request and still gets every answer.
 *
 * To be called while the server's one listener is who begins the requests. Others see each request when it has arrived.
 */
export function beginInOrder(server: Server): void {
  const [begin, ...others] = server.listeners('request') as Begin[];
  if (begin === undefined || others.length > 0) throw new Error('one listener begins the requests');
  server.removeAllListeners('request');
  // Node would end our half as well, and with it the answers that are not written yet.
  (server as Server & { httpAllowHalfOpen: boolean }).httpAllowHalfOpen = true;
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    const socket = request.socket as ServedSocket;
    // The parser lives on where the fault was that the bytes came too late.
    if (socket[FAULTY] === true) {
      neverEnd(request);
      return;
    }
    socket[LATEST] = response;
    // Node gives a response its socket once the response before it has ended.
    if (response.socket === null) waitForTurn(socket, request, response, begin);
    else begin(request, response);
  });
}

function waitForTurn(
  socket: ServedSocket,
  request: ServedRequest,
  response: ServerResponse,
  begin: Begin,
): void {
  if (socket[WAITING] === undefined) {
    // A body that is read resumes the connection for all that comes behind it.
    socket.on('resume', () => {
      if (mustPause(socket)) socket.pause();
    });
    socket.once('close', () => clearTimeout(socket[TIMER]));
  }
  socket[WAITING] = (socket[WAITING] ?? 0) + 1;
  if (mustPause(socket)) socket.pause();
  response.once('socket', () => {
    socket[WAITING] = (socket[WAITING] ?? 0) - 1;
    if (!mustPause(socket) && socket.isPaused()) socket.resume();
    // Node still flushes the response in this turn.
    process.nextTick(() => {
      // A request whose body turned out to be faulty has no effect: `whenItsTurn` answers in its place.
      if (socket.destroyed || request[FAULTY] === true) return;
      if (!request.complete || request[OVERDUE] === true) timeFromNow(socket, request, response);
      begin(request, response);
    });
  });
}

/** Tells of a timeout when the rest of a request, or of the head behind it, has not arrived in the time of a whole request. */
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
 * Whether a timeout does not count: while the latest request waits, we may be the ones who do not read. Its time runs from when its
 * turn comes.
 */
export function isHeldUp(socket: ServedSocket): boolean {
  const latest = socket[LATEST];
  if (latest === undefined || socket[FAULTY] === true) return false;
  const request = latest.req as ServedRequest;
  if (latest.socket !== null || latest.writableEnded)
    return request[TIMED] === true && (!request.complete || request[OVERDUE] === true);
  // With the request in whole, and the connection read, it is the client who does not send the head behind it.
  if (request.complete && !socket.isPaused()) return false;
  request[OVERDUE] = request.complete;
  return true;
}

/**
 * Throws away what still arrives of a body, and lets it fail when the connection closes: whoever reads it must not take it for whole,
 * as its client is told otherwise.
 */
function neverEnd(request: ServedRequest): void {
  request[FAULTY] = true;
  request.push = () => true;
}

/** What comes behind a fault is read and thrown away: unread, it would have the system cut the connection before the answers arrive. */
function mustPause(socket: ServedSocket): boolean {
  return (socket[WAITING] ?? 0) > WAITING_MAX && socket[FAULTY] !== true;
}

/**
 * Calls `answer` when what it writes is taken for the answer to the bytes at fault: behind the answers to all requests that arrived in
 * whole before them. Those may have taken effect, and keep their answers. Only the first fault of a connection counts.
 *
 * `answer` is not called when the connection ends before, or the request at fault has its answer already.
 */
export function whenItsTurn(socket: ServedSocket, answer: () => void): void {
  if (socket[FAULTY] === true) return;
  socket[FAULTY] = true;
  if (socket.isPaused()) socket.resume();
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

/** Ends our half of a connection, behind `bytes`, and soon the whole: Node lets the client keep its half for as long as it likes. */
export function endSoon(socket: Socket, bytes = ''): void {
  socket.end(bytes);
  const timer = setTimeout(() => socket.destroy(), ENDED_LINGER_MS).unref();
  socket.once('close', () => clearTimeout(timer));
}

/**
 * Calls `onGone` once the client cannot want more of an answer that may never end: its connection has closed, or it ended its
 * half of it, as one does that goes away.
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
