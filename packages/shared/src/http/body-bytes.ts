import type { IncomingMessage } from 'node:http';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { BYTE_US } from '../admission/account.ts';
import type { Hold, Pool } from '../admission/pool.ts';
import { AppError } from '../contract/app-error.ts';
import { freeMemory } from '../process/free-memory.ts';
import type { ShareKey } from '../shares/share-key.ts';
import type { CutOffs, Transfer } from './cut-offs.ts';
import { shareOfRequest } from './guard.ts';
import type { HttpShares } from './http-shares.ts';

const BODY = Symbol('body');
const SHARES = Symbol('shares of bodies');

declare module 'fastify' {
  interface FastifyRequest {
    [BODY]?: IncomingBody;
  }

  interface FastifyInstance {
    [SHARES]?: BodyShares;
  }
}

interface BodyShares {
  readonly bytes: Pool;
  readonly cutOffs: CutOffs;
}

export type BodyDone = (error: AppError | null, body?: Buffer) => void;

/**
 * Limits the memory of request bodies. Before a body is read, it takes bytes of the gate: its announced
 * length, or the longest of its route. It holds them until its request is answered. While it waits for them,
 * TCP makes the client wait.
 */
export function limitBodies(app: FastifyInstance, { gate: { bytes }, cutOffs }: HttpShares): void {
  app.decorate(SHARES, { bytes, cutOffs });
  app.addHook('onSend', (request, reply, payload, done) => {
    const body = request[BODY];
    if (body !== undefined) {
      if (!request.raw.complete) reply.header('connection', 'close');
      body[Symbol.dispose]();
      delete request[BODY];
    }
    done(null, payload);
  });
}

/** Gives the bytes of a body back before its request is answered. */
export function giveBackBody(request: FastifyRequest): void {
  request[BODY]?.[Symbol.dispose]();
}

function tooLarge(bytesMax: number): AppError {
  return new AppError('payload_too_large', { detail: `a body may have ${bytesMax} bytes here` });
}

/**
 * Reads the body of a request as bytes, for content type parsers. `done` receives it, or `payload_too_large`,
 * `rate_limited`, `overloaded` or `request_timeout`.
 */
export function readBody(request: FastifyRequest, payload: IncomingMessage, done: BodyDone): void {
  const { bodyLimit } = request.routeOptions;
  const announced = announcedBytes(payload);
  if (announced !== undefined && announced > bodyLimit) done(tooLarge(bodyLimit));
  // The client has gone during the check of its token.
  else if (payload.destroyed) done(new AppError('invalid_request'));
  else {
    const shares = request.server[SHARES] as BodyShares;
    const body = new IncomingBody(payload, { ...shares, announced, bodyLimit, done });
    request[BODY] = body;
    body.read(shareOfRequest(request));
  }
}

interface BodyOptions extends BodyShares {
  /** Undefined when the length is unknown. */
  readonly announced: number | undefined;
  readonly bodyLimit: number;
  readonly done: BodyDone;
}

/** The body of a request. It exists until the request is answered. */
class IncomingBody implements Transfer, Disposable {
  hold: Hold | undefined;
  readonly #payload: IncomingMessage;
  readonly #options: BodyOptions;
  /** A body of known length. One copy of 16 MiB at its end would block the event loop. */
  #whole: Buffer | undefined;
  /** The parts of a body of unknown length. */
  #chunks: Buffer[] = [];
  #received = 0;
  #isOver = false;
  /** Ends the wait for bytes. */
  #waiting: AbortController | undefined;

  constructor(payload: IncomingMessage, options: BodyOptions) {
    this.#payload = payload;
    this.#options = options;
    payload.once('close', this.#onClose);
  }

  read(key: ShareKey): void {
    const { bytes, announced, bodyLimit } = this.#options;
    const units = announced ?? bodyLimit;
    const hold = bytes.tryTake(key, units);
    if (hold !== undefined) {
      this.#begin(hold);
      return;
    }
    this.#waiting = new AbortController();
    void bytes.take(key, units, this.#waiting.signal).then(
      (taken) => this.#begin(taken),
      (error) => this.#end(error),
    );
  }

  moved(): number {
    return this.#received;
  }

  cut(): void {
    const detail = 'the body came too slowly while bytes were scarce';
    this.#end(new AppError('request_timeout', { detail }));
    // At once, before the refusal has been sent.
    this.hold?.[Symbol.dispose]();
  }

  /** Stops reading unless the body has ended, and gives its bytes back. */
  [Symbol.dispose](): void {
    if (this.#leave()) this.#discard();
    this.hold?.[Symbol.dispose]();
  }

  #begin(hold: Hold): void {
    this.#waiting = undefined;
    if (this.#isOver) {
      hold[Symbol.dispose]();
      return;
    }
    this.hold = hold;
    const { announced, cutOffs } = this.#options;
    // Pages of memory that nothing has written to take no physical memory.
    if (announced !== undefined) this.#whole = Buffer.allocUnsafe(announced);
    cutOffs.add(this);
    this.#payload.on('data', this.#onData).on('end', this.#onEnd).on('error', this.#onError);
    this.#payload.resume();
  }

  readonly #onData = (chunk: Buffer): void => {
    const at = this.#received;
    this.#received += chunk.length;
    if (this.#received > this.#options.bodyLimit) this.#end(tooLarge(this.#options.bodyLimit));
    else if (this.#whole === undefined) this.#chunks.push(chunk);
    else chunk.copy(this.#whole, at);
  };

  readonly #onEnd = (): void => {
    const { hold } = this;
    const { bytes, done } = this.#options;
    hold?.resize(this.#received);
    if (hold !== undefined) bytes.accounts.charge(hold.account, this.#received * BYTE_US);
    const whole = this.#whole ?? Buffer.concat(this.#chunks);
    if (this.#leave()) done(null, whole);
  };

  readonly #onError = (cause: Error): void => this.#end(new AppError('invalid_request', { cause }));

  /** A close before the end is an error, even while the body waits for bytes. */
  readonly #onClose = (): void => this.#end(new AppError('invalid_request'));

  #end(error: AppError): void {
    if (!this.#leave()) return;
    this.#discard();
    this.#options.done(error);
  }

  #discard(): void {
    if (this.#whole !== undefined) freeMemory(this.#whole);
    this.#whole = undefined;
    this.#chunks = [];
  }

  /** @returns false when the body was over already. */
  #leave(): boolean {
    if (this.#isOver) return false;
    this.#isOver = true;
    this.#waiting?.abort();
    this.#options.cutOffs.delete(this);
    this.#payload.off('data', this.#onData).off('end', this.#onEnd).off('error', this.#onError);
    this.#payload.off('close', this.#onClose);
    return true;
  }
}

/** The length of the body that a request announces; undefined when it is unknown. */
function announcedBytes({ headers }: IncomingMessage): number | undefined {
  if (headers['transfer-encoding'] !== undefined) return undefined;
  return Number(headers['content-length'] ?? 0);
}
