import type { IncomingMessage } from 'node:http';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { type Accounts, BYTE_US } from '../admission/account.ts';
import type { Hold, Pool } from '../admission/pool.ts';
import { AppError } from '../contract/app-error.ts';
import { type CutOffs, cutOffsOf, type Transfer } from './cut-offs.ts';
import { GatheredBody } from './gathered-body.ts';
import { shareOfRequest } from './request-share.ts';

const BODY = Symbol('body');
const POOL = Symbol('bytes of bodies');

declare module 'fastify' {
  interface FastifyRequest {
    [BODY]?: IncomingBody;
  }

  interface FastifyInstance {
    [POOL]?: Pool;
  }
}

export type BodyDone = (error: AppError | null, body?: Buffer) => void;

/** The body of a request, until the request is answered. */
interface IncomingBody {
  hold: Hold | undefined;
  /** Stops reading, if it has not ended. */
  readonly stop: () => void;
}

/**
 * Limits the memory of request bodies. A body has bytes of the gate for its announced length, or else for the
 * longest body of its route, before anything of it is read, until its request is answered. Until then, TCP
 * makes the client wait.
 */
export function limitBodies(app: FastifyInstance, bytes: Pool): void {
  app.decorate(POOL, bytes);
  app.addHook('onSend', (request, reply, payload, done) => {
    const body = request[BODY];
    if (body !== undefined) {
      if (!request.raw.complete) reply.header('connection', 'close');
      giveBackBody(request);
      delete request[BODY];
    }
    done(null, payload);
  });
}

/** Gives the bytes of a body back before its request is answered. */
export function giveBackBody(request: FastifyRequest): void {
  const body = request[BODY];
  body?.stop();
  body?.hold?.[Symbol.dispose]();
}

/**
 * Reads the body of a request as bytes, for content type parsers. `done` receives it, or `payload_too_large`,
 * `rate_limited`, `overloaded` or `request_timeout`.
 */
export function readBody(request: FastifyRequest, payload: IncomingMessage, done: BodyDone): void {
  const { bodyLimit } = request.routeOptions;
  const announced = announcedBytes(payload);
  if (announced !== undefined && announced > bodyLimit) {
    done(new AppError('payload_too_large'));
    return;
  }
  // Its client has gone during the check of its token.
  if (payload.destroyed) {
    done(new AppError('invalid_request'));
    return;
  }
  const pool = request.server[POOL] as Pool;
  const gone = new AbortController();
  let isOver = false;
  const end = (error: AppError | null, body?: Buffer): void => {
    if (isOver) return;
    isOver = true;
    gone.abort(error);
    payload.off('close', onClose);
    if (error === null) done(null, body);
    else done(error);
  };
  const onClose = (): void => end(new AppError('invalid_request'));
  // Its end is an error while it has not been read.
  payload.once('close', onClose);
  const stop = (): void => {
    isOver = true;
    gone.abort();
    payload.off('close', onClose);
  };
  const body: IncomingBody = { hold: undefined, stop };
  request[BODY] = body;
  const read = (hold: Hold): void => {
    body.hold = hold;
    if (isOver) hold[Symbol.dispose]();
    else
      gather(payload, {
        hold,
        accounts: pool.accounts,
        announced,
        bodyLimit,
        end,
        signal: gone.signal,
        cutOffs: cutOffsOf(request.server),
      });
  };
  const key = shareOfRequest(request);
  const units = announced ?? bodyLimit;
  const hold = pool.tryTake(key, units);
  if (hold !== undefined) read(hold);
  else void pool.take(key, units, gone.signal).then(read, end);
}

interface Gathering {
  readonly hold: Hold;
  readonly accounts: Accounts;
  readonly announced: number | undefined;
  readonly bodyLimit: number;
  readonly end: (error: AppError | null, body?: Buffer) => void;
  /** Aborted once it is over. */
  readonly signal: AbortSignal;
  readonly cutOffs: CutOffs;
}

function gather(
  payload: IncomingMessage,
  { hold, accounts, announced, bodyLimit, end, signal, cutOffs }: Gathering,
): void {
  const body = new GatheredBody(announced);
  let received = 0;
  let isComplete = false;
  const onData = (chunk: Buffer): void => {
    received += chunk.length;
    if (received > bodyLimit) end(new AppError('payload_too_large'));
    else body.add(chunk);
  };
  const onEnd = (): void => {
    isComplete = true;
    hold.resize(received);
    accounts.charge(hold.account, received * BYTE_US);
    end(null, body.take());
  };
  const onError = (cause: Error): void => end(new AppError('invalid_request', { cause }));
  const transfer: Transfer = {
    hold,
    moved: () => received,
    cut: () => {
      const detail = 'the body came too slowly while bytes were scarce';
      end(new AppError('request_timeout', { detail }));
      // Now, not when the refusal has been sent.
      hold[Symbol.dispose]();
    },
  };
  cutOffs.add(transfer);
  signal.addEventListener(
    'abort',
    () => {
      cutOffs.delete(transfer);
      payload.off('data', onData).off('end', onEnd).off('error', onError);
      if (!isComplete) body.discard();
    },
    { once: true },
  );
  payload.on('data', onData).on('end', onEnd).on('error', onError);
  payload.resume();
}

/** The length of the body that a request announces; undefined when it is unknown. */
function announcedBytes({ headers }: IncomingMessage): number | undefined {
  if (headers['transfer-encoding'] !== undefined) return undefined;
  return Number(headers['content-length'] ?? 0);
}
