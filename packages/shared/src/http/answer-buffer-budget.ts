import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { AppError } from '../contract/app-error.ts';
import { freeMemory } from '../runtime/free-memory.ts';
import type { Hold } from '../shares/hold.ts';
import type { Share } from '../shares/share.ts';
import { bySpeed, MAKE_ROOM_AFTER_MS, Pace, slowest } from './pace.ts';
import { shareOfRequest } from './request-share.ts';
import { SentBytes } from './sent-bytes.ts';
import { sweepUntilClosed } from './sweeps.ts';

/** Buffer space reserved for the answer of a request. */
const RESERVED = Symbol('reserved room');
/** A buffer to which nothing but the answer refers. */
const OWN = Symbol('own buffer');

declare module 'fastify' {
  interface FastifyRequest {
    [RESERVED]?: Hold;
    [OWN]?: Buffer;
  }

  interface FastifyContextConfig {
    /** A POST that changes nothing. */
    isRead?: boolean;
    /** A read that a subject without other unread answers gets, however much others hold. */
    isForOperators?: boolean;
  }
}

/** `config` of a POST that changes nothing. */
export const READ = { isRead: true } as const;

/** `config` of a read whose answer has room whatever others hold, if its subject has no other unread one. */
export const FOR_OPERATORS = { isForOperators: true } as const;

/**
 * Smaller answers are not counted: Node stops reading from a connection long before many of them wait on it.
 */
const COUNTED_BYTES_MIN = 16_384;
const SWEEP_EVERY_MS = 1_000;

/** A connection whose client has not received all its answers. */
interface Reader {
  readonly socket: Socket;
  /** Holds, with the subject of each. */
  readonly holds: Map<Hold, string>;
  /** Buffers to free when their bytes are passed to the system. */
  readonly own: Set<Buffer>;
  readonly pace: Pace;
  /** Stops tracking the connection, and releases its holds. */
  readonly forget: () => void;
  readonly sent: SentBytes;
}

/**
 * Limits the memory of answers that clients have not received yet, and of answers that requests will have.
 *
 * The reservation of a read can be taken back while others wait: its answer then waits for room itself.
 *
 * One class, because a reservation becomes the hold of its answer, and the same sweep ends both.
 */
export class AnswerBufferBudget {
  readonly #share: Share;
  readonly #readers = new Map<Socket, Reader>();
  /** Reads with a reservation. */
  readonly #reserving = new Set<FastifyRequest>();
  #cuts = 0;

  constructor(share: Share) {
    this.#share = share;
  }

  /** Connections that were closed because their clients read too slowly. */
  get cuts(): number {
    return this.#cuts;
  }

  /** @throws AppError `rate_limited`, `overloaded`. */
  async reserve(request: FastifyRequest, bytes: number): Promise<void> {
    if (bytes >= COUNTED_BYTES_MIN) this.#reserve(request, await this.#take(request, bytes, 0));
  }

  /** As {@link reserve}, but only if clients of the subject have not received all their answers. */
  async reserveWhereHeld(request: FastifyRequest, bytes: number): Promise<void> {
    if (this.#share.heldBy(shareOfRequest(request).subject) > 0) await this.reserve(request, bytes);
  }

  /**
   * Reserves without waiting, for an answer that is ready at once. A subject whose clients have received all
   * their answers needs no reservation: its answer is counted by its size.
   *
   * @returns false when there is no room.
   */
  reserveNow(request: FastifyRequest, bytes: number): boolean {
    if (request[RESERVED] !== undefined) return true;
    const key = shareOfRequest(request);
    const isFirst = this.#share.heldBy(key.subject) === 0;
    const hold = this.#share.tryTake(key, bytes);
    if (hold !== undefined) this.#reserve(request, hold);
    return hold !== undefined || isFirst;
  }

  /** Ends a reservation, if there is one. */
  giveBack(request: FastifyRequest): void {
    this.#takeReserved(request)?.[Symbol.dispose]();
  }

  #reserve(request: FastifyRequest, hold: Hold): void {
    request[RESERVED] = hold;
    if (isRead(request)) this.#reserving.add(request);
  }

  #takeReserved(request: FastifyRequest): Hold | undefined {
    const hold = request[RESERVED];
    delete request[RESERVED];
    this.#reserving.delete(request);
    return hold;
  }

  /**
   * Holds room for an answer until its last byte is passed to the system, or the connection closes. Then a
   * buffer of {@link freeOnceSent} is freed.
   *
   * @param done receives `rate_limited` or `overloaded` when there is no room for the answer of a read.
   */
  hold(
    request: FastifyRequest,
    response: ServerResponse,
    payload: unknown,
    done: (error?: Error) => void,
  ): void {
    const reserved = this.#takeReserved(request);
    const { socket } = request.raw;
    const bytes = typeof payload === 'string' || Buffer.isBuffer(payload) ? Buffer.byteLength(payload) : 0;
    if (bytes < COUNTED_BYTES_MIN || socket.destroyed) {
      reserved?.[Symbol.dispose]();
      done();
      return;
    }
    const key = shareOfRequest(request);
    const own = payload === request[OWN] ? request[OWN] : undefined;
    reserved?.resize(bytes);
    let hold = reserved ?? this.#share.tryTake(key, bytes);
    // A write has already taken effect, so its answer is not refused.
    if (!isRead(request) || (isForOperators(request) && this.#share.heldBy(key.subject) === 0))
      hold ??= this.#share.charge(key, bytes);
    if (hold !== undefined) {
      this.#keep(request, response, hold, own);
      done();
      return;
    }
    this.#take(request, bytes, bytes).then(
      (taken) => {
        if (socket.destroyed) taken[Symbol.dispose]();
        else this.#keep(request, response, taken, own);
        done();
      },
      (error: unknown) => {
        // The refusal is sent in its place.
        if (own !== undefined) freeMemory(own);
        done(error as Error);
      },
    );
  }

  /**
   * Measures how fast clients read. It closes the slowest connections while more than half of the room is in
   * use. While others wait, it also takes room from the subject that holds most: reservations of its reads,
   * then connections. Call it each second.
   */
  sweep(): void {
    for (const reader of this.#readers.values()) reader.pace.note(reader.sent.total);
    this.#cutSlow();
    this.#cutGreedy();
  }

  #cutSlow(): void {
    const half = this.#share.capacity / 2;
    let { held } = this.#share;
    if (held <= half) return;
    for (const reader of slowest(this.#readers.values())) {
      if (held <= half) return;
      for (const { units } of reader.holds.keys()) held -= units;
      this.#cut(reader);
    }
  }

  /** A fast reader may still hold its room for long. */
  #cutGreedy(): void {
    for (;;) {
      const subject = this.#share.greedySubject(MAKE_ROOM_AFTER_MS);
      if (subject === undefined) return;
      const reserving = this.#reserving.values().find((one) => shareOfRequest(one).subject === subject);
      if (reserving !== undefined) {
        this.giveBack(reserving);
        continue;
      }
      const next = bySpeed(this.#readers.values()).find(({ holds }) => [...holds.values()].includes(subject));
      if (next === undefined) return;
      this.#cut(next);
    }
  }

  #cut(reader: Reader): void {
    this.#cuts++;
    reader.socket.destroy();
    // Now, not when the socket emits `close`.
    reader.forget();
  }

  /** Stops waiting when the client disconnects. */
  async #take(request: FastifyRequest, bytes: number, inMemory: number): Promise<Hold> {
    const { socket } = request.raw;
    const closed = new AbortController();
    const close = (): void => closed.abort(new AppError('request_timeout'));
    socket.once('close', close);
    try {
      return await this.#share.take(shareOfRequest(request), bytes, closed.signal, inMemory);
    } finally {
      socket.off('close', close);
    }
  }

  #keep(request: FastifyRequest, response: ServerResponse, hold: Hold, own: Buffer | undefined): void {
    const { socket } = request.raw;
    const reader = this.#readers.get(socket) ?? this.#watch(socket);
    reader.holds.set(hold, shareOfRequest(request).subject);
    if (own !== undefined) reader.own.add(own);
    response.once('finish', () => {
      // On a destroyed socket, the event may come before the system has released the bytes.
      if (own !== undefined && !socket.destroyed) {
        reader.own.delete(own);
        freeMemory(own);
      }
      hold[Symbol.dispose]();
      reader.holds.delete(hold);
      if (reader.holds.size === 0) reader.forget();
    });
  }

  #watch(socket: Socket): Reader {
    const holds = new Map<Hold, string>();
    const own = new Set<Buffer>();
    const forget = (): void => {
      for (const hold of holds.keys()) hold[Symbol.dispose]();
      this.#readers.delete(socket);
      // A destroyed one still has to release its buffers.
      if (!socket.destroyed) socket.off('close', end);
    };
    const end = (): void => {
      forget();
      for (const buffer of own) freeMemory(buffer);
    };
    const reader = { socket, holds, own, pace: new Pace(), forget, sent: new SentBytes(socket) };
    this.#readers.set(socket, reader);
    // An answer that is queued behind another one gets no event when the connection closes.
    socket.once('close', end);
    return reader;
  }
}

/** Whether the answer can be replaced by a refusal, because nothing has changed. */
function isRead({ method, routeOptions }: FastifyRequest): boolean {
  return method === 'GET' || method === 'HEAD' || routeOptions.config.isRead === true;
}

function isForOperators({ routeOptions }: FastifyRequest): boolean {
  return routeOptions.config.isForOperators === true;
}

const budgets = new WeakMap<object, AnswerBufferBudget>();

/**
 * Limits the answers that clients of a server have not received. Without it, one client could send many
 * requests on many connections and read nothing.
 *
 * Only the answer of a read is refused, because a write has already taken effect. A write whose answer may be
 * large calls {@link reserveAnswer} before it begins.
 */
export function limitBufferedAnswers(app: FastifyInstance, share: Share): void {
  const budget = new AnswerBufferBudget(share);
  budgets.set(app.server, budget);
  sweepUntilClosed(app, SWEEP_EVERY_MS, () => budget.sweep());
  app.addHook('onSend', (request, reply, payload, done) => {
    budget.hold(request, reply.raw, payload, (error) => {
      if (error === undefined) done(null, payload);
      else done(error);
    });
  });
}

/** The budget for the answers of a server. */
export function answerBudgetOf(app: FastifyInstance): AnswerBufferBudget {
  const budget = budgets.get(app.server);
  if (budget === undefined) throw new Error('the server does not limit its answers');
  return budget;
}

/**
 * Reserves room for the largest answer of a write before it begins. Its answer or refusal releases the room.
 *
 * @throws AppError `rate_limited`, `overloaded`: nothing has begun.
 */
export async function reserveAnswer(request: FastifyRequest, bytesMax: number): Promise<void> {
  await answerBudgetOf(request.server).reserve(request, bytesMax);
}

/**
 * Reserves room for the largest answer of a read, if clients of its subject have not received other answers
 * yet. So a subject cannot make the service build large pages that it does not read. A subject that has
 * received all its answers does not wait for room.
 *
 * @throws AppError `rate_limited`, `overloaded`.
 */
export async function reserveAnotherPage(request: FastifyRequest, bytesMax: number): Promise<void> {
  await answerBudgetOf(request.server).reserveWhereHeld(request, bytesMax);
}

/**
 * Reserves the same room for a page that is ready at once. It is needed because several concurrent requests
 * may each have found that their subject had received its answers.
 *
 * @returns false when there is no room: then {@link reserveAnotherPage} waits for it.
 */
export function reservePageNow(request: FastifyRequest, bytesMax: number): boolean {
  return answerBudgetOf(request.server).reserveNow(request, bytesMax);
}

/** Releases the reservation of {@link reserveAnotherPage} while a read waits for something to read. */
export function giveBackReserved(request: FastifyRequest): void {
  answerBudgetOf(request.server).giveBack(request);
}

/**
 * Frees an answer once the system has its bytes, or the connection is closed. Call it only when nothing but
 * the answer refers to the buffer.
 *
 * @returns the buffer.
 */
export function freeOnceSent(request: FastifyRequest, answer: Buffer): Buffer {
  request[OWN] = answer;
  return answer;
}
