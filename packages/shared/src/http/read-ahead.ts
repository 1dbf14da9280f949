import type { IncomingMessage, Server } from 'node:http';
import type { Socket } from 'node:net';

/**
 * Bytes of requests that may wait behind another on one connection. With as many, nothing further is parsed
 * or read.
 */
export const WAITING_BYTES_MAX = 32_768;
/**
 * The same for all connections of a server together. Beyond it, only one request may wait on each connection.
 */
export const SERVER_WAITING_BYTES_MAX = 33_554_432;
/** What a parsed request takes beside its head and body: the objects of Node for it and its response. */
const REQUEST_BYTES = 1_024;

const WAITING = Symbol('requests that wait');
const BYTES = Symbol('bytes of a request');

/** The code of llhttp by which the callback for a head stops the parser behind it. */
const HPE_PAUSED = 21;

interface Waiting {
  count: number;
  bytes: number;
  /** The parser is to stop behind the head that it is at. */
  mustStop: boolean;
}

interface Parser {
  /** Told of each head. 0 has the parser read on. */
  onIncoming: (request: IncomingMessage, keepAlive: boolean) => number;
  readonly execute: (bytes: Buffer) => unknown;
  readonly resume: () => void;
}

/** A socket of Node's HTTP server, which documents neither of its own two members. */
export interface ParsedSocket extends Socket {
  [WAITING]?: Waiting;
  readonly parser?: Parser | null;
  /**
   * The server itself reads nothing until the client has taken answers. Data that flows meanwhile would fail
   * an assertion.
   */
  readonly _paused?: boolean;
}

interface WaitingRequest extends IncomingMessage {
  [BYTES]?: number;
}

/**
 * Bounds how far a server reads ahead of the requests that it carries out: by the bytes of those that wait,
 * on a connection and in all. What is beyond a bound is not parsed, and then not read, until requests had
 * their turn: TCP holds the client up. Nothing is dropped.
 *
 * One read brings up to 64 KiB, which may be thousands of requests, and each takes a kilobyte once it is
 * parsed. So the parser stops in the midst of what was read. Node reports that as the error `HPE_PAUSED`, for
 * which {@link keepUnparsed} is to be called.
 */
export class ReadAhead {
  readonly #serverBytesMax: number;
  #bytes = 0;

  constructor(server: Server, serverBytesMax: number) {
    this.#serverBytesMax = serverBytesMax;
    // The one for plain HTTP, the other for TLS. Node has given the socket its parser by then.
    for (const event of ['connection', 'secureConnection'] as const) server.on(event, stopOnDemand);
  }

  /**
   * Counts a request that has just been parsed and waits for its turn. Stops the parser when nothing more may
   * wait.
   */
  add(socket: ParsedSocket, request: WaitingRequest): void {
    const waiting = socket[WAITING] ?? this.#watch(socket);
    const bytes = bytesOf(request);
    request[BYTES] = bytes;
    waiting.count++;
    waiting.bytes += bytes;
    this.#bytes += bytes;
    if (waiting.bytes < WAITING_BYTES_MAX && this.#bytes < this.#serverBytesMax) return;
    waiting.mustStop = true;
    socket.pause();
  }

  /** The turn of a request has come. */
  remove(socket: ParsedSocket, request: WaitingRequest): void {
    const waiting = socket[WAITING];
    if (waiting === undefined) return; // Released, or closed, and given back as a whole.
    const bytes = request[BYTES] ?? 0;
    waiting.count--;
    waiting.bytes -= bytes;
    this.#bytes -= bytes;
    if (socket.isPaused() && !this.#mustStayPaused(socket)) socket.resume();
  }

  /** Counts nothing of a connection any more, on which no further request will wait. */
  release(socket: ParsedSocket): void {
    this.#bytes -= socket[WAITING]?.bytes ?? 0;
    delete socket[WAITING];
  }

  #watch(socket: ParsedSocket): Waiting {
    const waiting = { count: 0, bytes: 0, mustStop: false };
    socket[WAITING] = waiting;
    // A body that is read, and the end of a request, resume the connection for all that comes behind.
    socket.on('resume', () => {
      if (this.#mustStayPaused(socket)) socket.pause();
      else readOn(socket);
    });
    socket.once('close', () => this.release(socket));
    return waiting;
  }

  /**
   * A connection that stopped is read again once half of what waited had its turn, so that it does not stop
   * at each request.
   */
  #mustStayPaused(socket: ParsedSocket): boolean {
    if (socket._paused === true) return true;
    const { count, bytes } = socket[WAITING] ?? { count: 0, bytes: 0 };
    return count > 0 && (bytes > WAITING_BYTES_MAX / 2 || this.#bytes >= this.#serverBytesMax);
  }
}

/** Has the parser of a connection stop where {@link ReadAhead} wants it to. */
function stopOnDemand(socket: ParsedSocket): void {
  const { parser } = socket;
  if (parser === undefined || parser === null) return;
  const { onIncoming } = parser;
  parser.onIncoming = (request, keepAlive) => {
    const verdict = onIncoming(request, keepAlive);
    if (verdict !== 0 || socket[WAITING]?.mustStop !== true) return verdict;
    socket[WAITING].mustStop = false;
    return HPE_PAUSED;
  };
}

/**
 * Keeps what the parser left of a read for when the connection is read again.
 *
 * @param parsed how many bytes of it are parsed.
 */
export function keepUnparsed(socket: ParsedSocket, read: Buffer, parsed: number): void {
  socket.pause();
  // Node's parser reads from the handle itself until somebody else wants the data.
  socket.on('data', ignore);
  socket.off('data', ignore);
  // While it is paused: it would emit them at once.
  if (parsed < read.length) socket.unshift(read.subarray(parsed));
  socket.parser?.resume();
  // A request without a body is in whole, but the parser would say so with the next bytes only.
  socket.parser?.execute(read.subarray(parsed, parsed));
  // The end of a request resumed it.
  socket.pause();
}

/**
 * Reads all that still arrives on a connection, and parses none of it. Unread, it would have the system cut
 * the connection.
 */
export function readInVain(socket: ParsedSocket): void {
  socket.removeAllListeners('data');
  socket.on('data', ignore);
  socket.resume();
  readOn(socket);
}

/**
 * A pause while the parser read from the handle itself stopped the handle. The stream does not know, and
 * would never start it.
 */
function readOn(socket: Socket): void {
  if (!socket.destroyed) socket._read(0);
}

const ignore = (): void => undefined;

function bytesOf(request: IncomingMessage): number {
  const { rawHeaders, headers } = request;
  let bytes = REQUEST_BYTES + (request.url?.length ?? 0);
  for (const text of rawHeaders) bytes += text.length;
  // Only the end tells how long a chunked body is.
  if (headers['transfer-encoding'] !== undefined) return WAITING_BYTES_MAX;
  return Math.min(bytes + Number(headers['content-length'] ?? 0), WAITING_BYTES_MAX);
}
