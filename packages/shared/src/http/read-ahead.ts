import type { IncomingMessage, Server } from 'node:http';
import type { Socket } from 'node:net';

/** Bytes of requests that may wait on one connection. From this many on, nothing more is parsed or read. */
export const WAITING_BYTES_MAX = 32_768;
/**
 * The same limit for all connections of a server together. Beyond it, only one request may wait on each
 * connection.
 */
export const SERVER_WAITING_BYTES_MAX = 33_554_432;
/** Memory of a parsed request in addition to its head and body: Node's objects for it and its response. */
const REQUEST_BYTES = 1_024;

const WAITING = Symbol('waiting requests');
const BYTES = Symbol('bytes of a request');

/** The llhttp code by which the callback for a head pauses the parser after it. */
const HPE_PAUSED = 21;

interface Waiting {
  count: number;
  bytes: number;
  /** The parser must pause after the present head. */
  mustStop: boolean;
}

interface Parser {
  /** Called for each head. When it returns 0, the parser continues. */
  onIncoming: (request: IncomingMessage, keepAlive: boolean) => number;
  readonly execute: (bytes: Buffer) => unknown;
  readonly resume: () => void;
}

/** A socket of Node's HTTP server, with two undocumented members. */
export interface ParsedSocket extends Socket {
  [WAITING]?: Waiting;
  readonly parser?: Parser | null;
  /**
   * The server stops reading until the client has received answers. Data that flows before that fails an
   * assertion.
   */
  readonly _paused?: boolean;
}

interface WaitingRequest extends IncomingMessage {
  [BYTES]?: number;
}

/**
 * Bounds how far a server reads ahead of the requests that it processes: by the bytes of the waiting
 * requests, per connection and in total. Beyond a bound, the server stops parsing and reading until some
 * requests had their turn. TCP makes the client wait, and nothing is dropped.
 *
 * One read returns up to 64 KiB, which may be thousands of requests, and each takes a kilobyte once it is
 * parsed. So the parser must pause within a read. Node reports that as the error `HPE_PAUSED`; its handler
 * must call {@link keepUnparsed}.
 */
export class ReadAhead {
  readonly #serverBytesMax: number;
  #bytes = 0;

  constructor(server: Server, serverBytesMax: number) {
    this.#serverBytesMax = serverBytesMax;
    // For plain HTTP and for TLS. By then Node has assigned a parser to the socket.
    for (const event of ['connection', 'secureConnection'] as const) server.on(event, stopOnDemand);
  }

  /**
   * Counts a request that has just been parsed and waits for its turn. Pauses the parser when nothing more
   * may wait.
   *
   * @param isLast nothing more may wait on its connection in any case.
   */
  add(socket: ParsedSocket, request: WaitingRequest, isLast: boolean): void {
    const waiting = socket[WAITING] ?? this.#watch(socket);
    const bytes = bytesOf(request);
    request[BYTES] = bytes;
    waiting.count++;
    waiting.bytes += bytes;
    this.#bytes += bytes;
    if (!isLast && waiting.bytes < WAITING_BYTES_MAX && this.#bytes < this.#serverBytesMax) return;
    waiting.mustStop = true;
    socket.pause();
  }

  /** Call it when the turn of a request has come. */
  remove(socket: ParsedSocket, request: WaitingRequest): void {
    const waiting = socket[WAITING];
    if (waiting === undefined) return; // The connection was released or closed, and its bytes with it.
    const bytes = request[BYTES] ?? 0;
    waiting.count--;
    waiting.bytes -= bytes;
    this.#bytes -= bytes;
    if (socket.isPaused() && !this.#mustStayPaused(socket)) socket.resume();
  }

  /** Stops counting a connection on which no further request will wait. */
  release(socket: ParsedSocket): void {
    this.#bytes -= socket[WAITING]?.bytes ?? 0;
    delete socket[WAITING];
  }

  #watch(socket: ParsedSocket): Waiting {
    const waiting = { count: 0, bytes: 0, mustStop: false };
    socket[WAITING] = waiting;
    // Reading a body, and the end of a request, resume the connection too early.
    socket.on('resume', () => {
      if (this.#mustStayPaused(socket)) socket.pause();
      else readOn(socket);
    });
    socket.once('close', () => this.release(socket));
    return waiting;
  }

  /**
   * A paused connection is read again once half of its waiting bytes had their turn, so that it does not
   * pause at each request.
   */
  #mustStayPaused(socket: ParsedSocket): boolean {
    if (socket._paused === true) return true;
    const { count, bytes } = socket[WAITING] ?? { count: 0, bytes: 0 };
    return count > 0 && (bytes > WAITING_BYTES_MAX / 2 || this.#bytes >= this.#serverBytesMax);
  }
}

/** Lets {@link ReadAhead} pause the parser of a connection. */
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
 * Keeps the unparsed rest of a read until the connection is read again.
 *
 * @param parsed how many bytes of the read are parsed.
 */
export function keepUnparsed(socket: ParsedSocket, read: Buffer, parsed: number): void {
  socket.pause();
  // Node's parser reads directly from the handle until the socket has a `data` listener.
  socket.on('data', ignore);
  socket.off('data', ignore);
  // Only while the socket is paused: otherwise it would emit them at once.
  if (parsed < read.length) socket.unshift(read.subarray(parsed));
  socket.parser?.resume();
  // A request without a body is complete, but the parser would report it only with the next bytes.
  socket.parser?.execute(read.subarray(parsed, parsed));
  // The end of the request has resumed the socket.
  socket.pause();
}

/**
 * Reads and discards all further input of a connection. Unread input would make the system reset the
 * connection.
 */
export function readInVain(socket: ParsedSocket): void {
  socket.removeAllListeners('data');
  socket.on('data', ignore);
  socket.resume();
  readOn(socket);
}

/**
 * Restarts reading from the handle. A pause while the parser read directly from the handle has stopped it,
 * and the stream does not know that.
 */
function readOn(socket: Socket): void {
  if (!socket.destroyed) socket._read(0);
}

const ignore = (): void => undefined;

function bytesOf(request: IncomingMessage): number {
  const { rawHeaders, headers } = request;
  let bytes = REQUEST_BYTES + (request.url?.length ?? 0);
  for (const text of rawHeaders) bytes += text.length;
  // The length of a chunked body is known only at its end.
  if (headers['transfer-encoding'] !== undefined) return WAITING_BYTES_MAX;
  return Math.min(bytes + Number(headers['content-length'] ?? 0), WAITING_BYTES_MAX);
}
