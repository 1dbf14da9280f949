import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { AppError } from '../contract/app-error.ts';
import { PROBLEM_CONTENT_TYPE, problemOf } from '../contract/problem-reply.ts';
import { atFault, endSoon, type ServedSocket } from './connection.ts';
import type { RefusalDelay } from './refusal-delay.ts';

/** An error of Node's HTTP parser, with the bytes that caused it. */
export interface ClientError extends NodeJS.ErrnoException {
  readonly reason?: string;
  readonly bytesParsed?: number;
  /** A Buffer, contrary to Fastify's type. */
  readonly rawPacket?: unknown;
}

export interface ClientErrorPorts {
  readonly newRequestId: () => string;
  /** Methods of the path of a request target; undefined for a path without an endpoint. */
  readonly allowedAt: (target: string) => readonly string[] | undefined;
  readonly delay: RefusalDelay;
}

/**
 * Answers a request that Node's HTTP parser refuses with a problem document, and ends the connection. Such
 * requests never reach Fastify's hooks.
 */
export function answerClientError(error: ClientError, socket: Socket, ports: ClientErrorPorts): void {
  if (socket.writableEnded) return; // Answered already; the rest of the input is discarded.
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  // The bytes follow the last request: its answer ends the connection.
  if (error.code === 'HPE_CLOSED_CONNECTION') return;
  atFault(socket, () => refuse(socket, refusalOf(error, ports), ports));
}

/** Refuses with the same delay as requests that reach Fastify. */
function refuse(socket: Socket, error: AppError, { delay, newRequestId }: ClientErrorPorts): void {
  const end = () => {
    if (socket.writable) endWithProblem(socket, error, newRequestId());
  };
  const wait = delay.of(undefined, socket.remoteAddress);
  if (wait === undefined) end();
  else void wait.then(end);
}

/**
 * Node treats CONNECT as a tunnel, not as a request. It gets the same answer as any other method that a path
 * does not support.
 */
export function refuseConnect(app: FastifyInstance, ports: ClientErrorPorts): void {
  app.server.on('connect', (request: IncomingMessage, socket: ServedSocket) => {
    socket.on('error', () => undefined);
    socket.resume();
    const error = otherMethod(request.url ?? '', ports);
    atFault(socket, () => refuse(socket, error, ports));
  });
}

function refusalOf(error: ClientError, ports: ClientErrorPorts): AppError {
  switch (error.code) {
    case 'HPE_HEADER_OVERFLOW':
      return new AppError('headers_too_large');
    case 'HPE_CHUNK_EXTENSIONS_OVERFLOW':
      return new AppError('payload_too_large');
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return new AppError('request_timeout');
    case 'HPE_INVALID_VERSION':
    case 'HPE_PAUSED_H2_UPGRADE':
      return new AppError('http_version_unsupported');
    case 'HPE_INVALID_TRANSFER_ENCODING':
      // The parser has one code both for unknown codings and for contradictory framing.
      return /^(?:Request has invalid|Invalid) `Transfer-Encoding`/.test(error.reason ?? '')
        ? new AppError('transfer_coding_unsupported')
        : new AppError('invalid_request');
    case 'HPE_INVALID_METHOD': {
      const target = targetOf(error);
      return target === undefined ? new AppError('invalid_request') : otherMethod(target, ports);
    }
    default:
      return new AppError('invalid_request');
  }
}

function otherMethod(target: string, { allowedAt }: ClientErrorPorts): AppError {
  const allow = allowedAt(target);
  return allow === undefined ? new AppError('not_found') : new AppError('method_not_allowed', { allow });
}

const METHOD_BYTE = /[!#$%&'*+.^_`|~0-9A-Za-z-]/;
const REQUEST_LINE = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+ ([\x21-\x7e]+) HTTP\/1\.[01]\r?\n/;

/**
 * The target of a request line with a method that the parser does not know; undefined when the bytes are not
 * a request line.
 */
function targetOf({ rawPacket, bytesParsed }: ClientError): string | undefined {
  if (!Buffer.isBuffer(rawPacket) || bytesParsed === undefined) return undefined;
  const text = rawPacket.toString('latin1');
  let start = bytesParsed;
  // The parser stops within the method. Before the method is the end of another request, or nothing.
  while (start > 0 && METHOD_BYTE.test(text.charAt(start - 1))) start--;
  return REQUEST_LINE.exec(text.slice(start))?.[1];
}

/** Ends a connection with the problem document of an error. */
export function endWithProblem(socket: Socket, error: AppError, requestId: string): void {
  const problem = problemOf(error, requestId);
  const body = JSON.stringify(problem);
  const allow = error.allow === undefined ? '' : `Allow: ${error.allow.join(', ')}\r\n`;
  endSoon(
    socket,
    `HTTP/1.1 ${problem.status} ${problem.title}\r\nContent-Type: ${PROBLEM_CONTENT_TYPE}\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nCache-Control: no-store\r\n${allow}` +
      `X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n${body}`,
  );
}
