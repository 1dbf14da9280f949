import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { LoopTurns } from './loop-turns.ts';
import { type ParsedSocket, ReadAhead, readInVain } from './read-ahead.ts';

/** How long a connection stays open after we ended it, so that our last bytes can arrive, milliseconds. */
const ENDED_LINGER_MS = 500;

/** How long the rest of a refused body is read and discarded, milliseconds; and how many bytes. */
const REFUSED_LINGER_MS = 5_000;
const REFUSED_BYTES_MAX = 67_108_864;

const LATEST = Symbol('latest response');
const READ_AHEAD = Symbol('read-ahead of the connection');
const FAULTY = Symbol('faulty');
const OVERDUE = Symbol('overdue while it waited');
const TIMED = Symbol('timed from its turn');
const TIMER = Symbol('timer of the request that is timed from its turn');
const IN_LINE = Symbol('its next request waits for its turn among those of all connections');

/**
 * A connection of a server. Its state is stored on the socket, because a map would cost each request a
 * look-up.
 */
export interface ServedSocket extends ParsedSocket {
  /** The response to the latest request that was parsed from the connection. */
  [LATEST]?: ServerResponse;
  /** Set once a request waits for its turn. */
  [READ_AHEAD]?: ReadAhead;
  /**
   * Set at the first fault: bytes that are not HTTP, or that came too late. Nothing after them is a request.
   */
  [FAULTY]?: boolean;
  [TIMER]?: NodeJS.Timeout;
  /** Whether its next request may begin as soon as it is its turn among those of other connections. */
  [IN_LINE]?: boolean;
}

interface ServedRequest extends IncomingMessage {
  /** The timeout for the next head passed while this request waited. Node reports it only once. */
  [OVERDUE]?: boolean;
  /** Its timeout started when its turn came. */
  [TIMED]?: boolean;
  /** The fault of its connection is in its body. */
  [FAULTY]?: boolean;
}

type Begin = (request: IncomingMessage, response: ServerResponse) => void;

/** What {@link beginInOrder} needs beside the server. */
export interface BeginPorts {
  /** Maximum bytes of the waiting requests of all connections. */
  readonly waitingBytesMax: number;
  /** Requests of all connections begin in these turns. */
  readonly turns: LoopTurns;
  /** The name by which the requests of a connection take turns with others. */
  readonly turnOf: (socket: Socket) => string;
}

/**
 * Begins the requests of a connection one by one, each after the previous answer has ended. So pipelined
 * requests take effect in order (RFC 9112, section 9.3.2). Node alone would begin all of them at once and
 * only order their answers.
 *
 * A client may end its half of the connection after its last request and still gets every answer.
 *
 * Call it while the server has exactly one `request` listener, the one that begins requests. Listeners that
 * are added later see each request when it arrives.
 */
export function beginInOrder(server: Server, ports: BeginPorts): void {
  const readAhead = new ReadAhead(server, ports.waitingBytesMax);
  const [begin, ...others] = server.listeners('request') as Begin[];
  if (begin === undefined || others.length > 0)
    throw new Error('exactly one listener must begin the requests');
  server.removeAllListeners('request');
  // Otherwise Node would end our half too, and lose the answers that are not written yet.
  (server as Server & { httpAllowHalfOpen: boolean }).httpAllowHalfOpen = true;
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    const socket = request.socket as ServedSocket;
    socket[LATEST] = response;
    // Node assigns the socket to a response once the previous response has ended.
    const isFirst = response.socket !== null;
    if (isFirst && ports.turns.mayBegin()) {
      begin(request, response);
      return;
    }
    // While even one before it waits for others, reading ahead would only delay them.
    hold(socket, request, readAhead, socket[IN_LINE] === true);
    const beginHeld = (): void => {
      socket[IN_LINE] = false;
      readAhead.remove(socket, request);
      // A request with a faulty body must have no effect: `whenItsTurn` answers instead.
      if (socket.destroyed || (request as ServedRequest)[FAULTY] === true) return;
      timeHeld(socket, request, response);
      begin(request, response);
    };
    const name = ports.turnOf(socket);
    const awaitTurn = (): void => {
      socket[IN_LINE] = true;
      ports.turns.begin(name, beginHeld);
    };
    if (isFirst) awaitTurn();
    // Node flushes the response later in this turn.
    else response.once('socket', () => process.nextTick(awaitTurn));
  });
}

/** Counts a request that waits. */
function hold(socket: ServedSocket, request: ServedRequest, readAhead: ReadAhead, isLast: boolean): void {
  if (socket[READ_AHEAD] === undefined) {
    socket[READ_AHEAD] = readAhead;
    socket.once('close', () => clearTimeout(socket[TIMER]));
  }
  readAhead.add(socket, request, isLast);
}

/** Times the rest of a request, or the next head, once the answers before it are sent. */
function timeHeld(socket: ServedSocket, request: ServedRequest, response: ServerResponse): void {
  if (!request.complete || request[OVERDUE] === true) timeFromNow(socket, request, response);
}

/**
 * Restarts the request timeout. It fires when the rest of the request, or the next head, has not arrived by
 * then.
 */
function timeFromNow(socket: ServedSocket, request: ServedRequest, response: ServerResponse): void {
  const { server } = socket as Socket & { readonly server: Server };
  request[TIMED] = true;
  // The previous request is complete, or this one would not have been parsed.
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
 * Whether to ignore a timeout: while the latest request waits, the cause may be that we do not read. Its
 * timeout starts when its turn comes.
 */
export function isHeldUp(socket: ServedSocket): boolean {
  const latest = socket[LATEST];
  if (latest === undefined || socket[FAULTY] === true) return false;
  const request = latest.req as ServedRequest;
  const isHeld = latest.socket === null || socket[IN_LINE] === true;
  if (!isHeld || latest.writableEnded)
    return request[TIMED] === true && (!request.complete || request[OVERDUE] === true);
  // The request is complete and we read the connection, so the client is late with the next head.
  if (request.complete && !socket.isPaused()) return false;
  request[OVERDUE] = request.complete;
  return true;
}

/**
 * Discards the rest of a body, and lets it fail when the connection closes. A reader must not mistake it for
 * complete, because the client gets another answer.
 */
function neverEnd(request: ServedRequest): void {
  request[FAULTY] = true;
  request.push = () => true;
}

/**
 * Calls `answer` when it is the turn of the faulty bytes: after the answers to all complete requests before
 * them. Those may have taken effect, so they keep their answers. Only the first fault of a connection counts.
 *
 * It does not call `answer` when the connection closes first, or the faulty request has been answered
 * already.
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
  // An answer that has ended is completely in the socket, even if it is not sent yet.
  if (latest === undefined || (latest.writableEnded && latest.req.complete)) answer();
  // `finish` would be too late: if the client has ended its half, Node has ended ours by then.
  else if (latest.req.complete) latest.once('prefinish', answerIfOpen);
  // The fault is in the body of the latest request.
  else if (latest.writableEnded) endSoon(socket);
  else if (latest.socket === null) latest.once('socket', () => process.nextTick(answerIfOpen));
  else if (latest.headersSent) socket.destroy();
  else answer();
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
 * Calls `onGone` once the client of an endless answer has gone: the connection has closed, or the client has
 * ended its half.
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
