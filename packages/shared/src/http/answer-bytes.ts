import type { ServerResponse } from 'node:http';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { BYTE_US } from '../admission/account.ts';
import type { Hold, Pool } from '../admission/pool.ts';
import { freeMemory } from '../process/free-memory.ts';
import type { CutOffs, Transfer } from './cut-offs.ts';
import { shareOfRequest } from './guard.ts';
import type { HttpShares } from './http-shares.ts';
import { SentBytes } from './sent-bytes.ts';

/** A buffer that only the answer refers to. */
const OWN = Symbol('own buffer');

declare module 'fastify' {
  interface FastifyRequest {
    [OWN]?: Buffer;
  }

  interface FastifyContextConfig {
    /** A POST that changes nothing. */
    isRead?: boolean;
    /** A read that is never refused for want of bytes if its subject has no other unread answer. */
    isForOperators?: boolean;
  }
}

/** `config` of a POST that changes nothing. */
export const READ = { isRead: true } as const;

/** `config` of a read that operators need even when others hold all bytes. */
export const FOR_OPERATORS = { isForOperators: true } as const;

/**
 * Smaller answers are not counted, because Node stops reading from a connection before many wait on it.
 */
const COUNTED_BYTES_MIN = 16_384;

/**
 * Limits the memory of answers that clients have not received. An answer holds bytes of the gate until the
 * system has all of it, or the connection closes. Without room, a refusal replaces the answer to a read. The
 * answer to a write is always sent, because the write has taken effect.
 */
export function limitAnswers(app: FastifyInstance, { gate: { bytes }, cutOffs }: HttpShares): void {
  app.addHook('onSend', (request, reply, payload, done) => {
    const length = typeof payload === 'string' || Buffer.isBuffer(payload) ? Buffer.byteLength(payload) : 0;
    if (length < COUNTED_BYTES_MIN || request.raw.socket.destroyed) {
      done(null, payload);
      return;
    }
    const own = payload === request[OWN] ? request[OWN] : undefined;
    const key = shareOfRequest(request);
    bytes.accounts.charge(bytes.accounts.of(key), length * BYTE_US);
    const hold = mayBeRefused(request, bytes) ? bytes.tryTakeMore(key, length) : bytes.charge(key, length);
    if (hold === undefined) {
      if (own !== undefined) freeMemory(own);
      done(bytes.refusal(key, length));
      return;
    }
    holdUntilSent(reply.raw, hold, cutOffs, own);
    done(null, payload);
  });
}

function holdUntilSent(
  response: ServerResponse,
  hold: Hold,
  cutOffs: CutOffs,
  own: Buffer | undefined,
): void {
  const { socket } = response.req;
  const sent = new SentBytes(socket);
  const end = (): void => {
    cutOffs.delete(transfer);
    hold[Symbol.dispose]();
  };
  const transfer: Transfer = {
    hold,
    moved: () => sent.total,
    cut: () => {
      socket.destroy();
      end();
    },
  };
  const onClose = (): void => {
    end();
    if (own !== undefined) freeMemory(own);
  };
  socket.once('close', onClose);
  response.once('finish', () => {
    // On a destroyed socket, this event may come before the system has released the bytes.
    if (socket.destroyed) return;
    socket.off('close', onClose);
    onClose();
  });
  cutOffs.add(transfer);
}

function mayBeRefused(request: FastifyRequest, bytes: Pool): boolean {
  const { method, routeOptions } = request;
  const { config } = routeOptions;
  if (config.isForOperators === true && bytes.heldBy(shareOfRequest(request).subject) === 0) return false;
  return method === 'GET' || method === 'HEAD' || config.isRead === true;
}

/**
 * Frees an answer once the system has its bytes, or the connection is closed. Call it only when nothing else
 * refers to the buffer.
 *
 * @returns the buffer.
 */
export function freeOnceSent(request: FastifyRequest, answer: Buffer): Buffer {
  request[OWN] = answer;
  return answer;
}
