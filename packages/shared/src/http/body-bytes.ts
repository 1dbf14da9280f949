import type { IncomingMessage } from 'node:http';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { type Accounts, BYTE_US } from '../admission/account.ts';
import type { Hold, Pool } from '../admission/pool.ts';
import { AppError } from '../contract/app-error.ts';
import type { ShareKey } from '../shares/share-key.ts';
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

/**
 * Reads the body of a request as bytes, for content type parsers. `done` receives it, or `payload_too_large`,
 * `rate_limited`, `overloaded` or `request_timeout`.
 */
export function readBody(request: FastifyRequest, payload: IncomingMessage, done: BodyDone): void {
  const { bodyLimit } = request.routeOptions;
  const announced = announcedBytes(payload);
  if (announced !== undefined && announced > bodyLimit) done(new AppError('payload_too_large'));
  // Its client has gone during the check of its token.
  else if (payload.destroyed) done(new AppError('invalid_request'));
  else {
    const { server } = request;
    const body = new IncomingBody(payload, { announced, bodyLimit, done, cutOffs: cutOffsOf(server) });
    request[BODY] = body;
    body.read(server[POOL] as Pool, shareOfRequest(request));
  }
}

interface BodyOptions {
  /** Undefined when the length is unknown. */
  readonly announced: number | undefined;
  readonly bodyLimit: number;
  readonly done: BodyDone;
  readonly cutOffs: CutOffs;
}

/**
 * The body of a request, until the request is answered.
 *
 * One class, because its wait for bytes, its reading and its hold end together.
 */
class IncomingBody implements Transfer, Disposable {
  hold: Hold | undefined;
  readonly #payload: IncomingMessage;
  readonly #options: BodyOptions;
  readonly #body: GatheredBody;
  #accounts: Accounts | undefined;
  #received = 0;
  #isOver = false;
  /** Ends the wait for bytes. */
  #waiting: AbortController | undefined;

  constructor(payload: IncomingMessage, options: BodyOptions) {
    this.#payload = payload;
    this.#options = options;
    this.#body = new GatheredBody(options.announced);
    payload.once('close', this.#onClose);
  }

  read(pool: Pool, key: ShareKey): void {
    this.#accounts = pool.accounts;
    const { announced, bodyLimit } = this.#options;
    const units = announced ?? bodyLimit;
    const hold = pool.tryTake(key, units);
    if (hold !== undefined) {
      this.#begin(hold);
      return;
    }
    this.#waiting = new AbortController();
    void pool.take(key, units, this.#waiting.signal).then(
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
    // Now, not when the refusal has been sent.
    this.hold?.[Symbol.dispose]();
  }

  /** Stops reading, if it has not ended, and gives its bytes back. */
  [Symbol.dispose](): void {
    if (this.#leave()) this.#body.discard();
    this.hold?.[Symbol.dispose]();
  }

  #begin(hold: Hold): void {
    this.#waiting = undefined;
    if (this.#isOver) {
      hold[Symbol.dispose]();
      return;
    }
    this.hold = hold;
    this.#options.cutOffs.add(this);
    this.#payload.on('data', this.#onData).on('end', this.#onEnd).on('error', this.#onError);
    this.#payload.resume();
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#received += chunk.length;
    if (this.#received > this.#options.bodyLimit) this.#end(new AppError('payload_too_large'));
    else this.#body.add(chunk);
  };

  readonly #onEnd = (): void => {
    const { hold } = this;
    hold?.resize(this.#received);
    if (hold !== undefined) this.#accounts?.charge(hold.account, this.#received * BYTE_US);
    const whole = this.#body.take();
    if (this.#leave()) this.#options.done(null, whole);
  };

  readonly #onError = (cause: Error): void => this.#end(new AppError('invalid_request', { cause }));

  /** Before its end, it is an error, also while it waits for bytes. */
  readonly #onClose = (): void => this.#end(new AppError('invalid_request'));

  #end(error: AppError): void {
    if (!this.#leave()) return;
    this.#body.discard();
    this.#options.done(error);
  }

  /** @returns false when it was over. */
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
