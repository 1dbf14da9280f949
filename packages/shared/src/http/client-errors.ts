import type { Socket } from 'node:net';
import { AppError } from '../contract/app-error.ts';
import { PROBLEM_CONTENT_TYPE, problemOf } from '../contract/problem-reply.ts';
import { atFault, endSoon } from './connection.ts';
import type { RefusalDelay } from './refusal-delay.ts';

/** An error of Node's HTTP parser. */
export interface ClientError extends NodeJS.ErrnoException {
  readonly reason?: string;
}

export interface ClientErrorPorts {
  readonly newRequestId: () => string;
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
  // The bytes follow the last request, whose answer ends the connection.
  if (error.code === 'HPE_CLOSED_CONNECTION') return;
  atFault(socket, () => refuse(socket, refusalOf(error), ports));
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

function refusalOf(error: ClientError): AppError {
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
    case 'HPE_INVALID_METHOD':
      return new AppError('invalid_request', { detail: 'the method is unknown' });
    default:
      return new AppError('invalid_request');
  }
}

/** Ends a connection with the problem document of an error. */
export function endWithProblem(socket: Socket, error: AppError, requestId: string): void {
  const problem = problemOf(error, requestId);
  const body = JSON.stringify(problem);
  endSoon(
    socket,
    `HTTP/1.1 ${problem.status} ${problem.title}\r\nContent-Type: ${PROBLEM_CONTENT_TYPE}\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nCache-Control: no-store\r\n` +
      `X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n${body}`,
  );
}
