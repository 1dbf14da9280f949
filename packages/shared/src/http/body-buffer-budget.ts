import type { IncomingMessage } from 'node:http';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { AppError } from '../contract/app-error.ts';
import type { Hold } from '../shares/hold.ts';
import type { Share } from '../shares/share.ts';
import type { ShareKey } from '../shares/share-key.ts';
import { ExtraRoom } from './extra-room.ts';
import { GatheredBody } from './gathered-body.ts';
import { bySpeed, MAKE_ROOM_AFTER_MS, Pace, slowest } from './pace.ts';
import { shareOfRequest } from './request-share.ts';
import { sweepUntilClosed } from './sweeps.ts';

/** Bodies and answers up to this size have a reserve. */
export const SMALL_BYTES_MAX = 65_536;
/**
 * A larger body takes room in steps of this size. A step is larger than a small body, so it never uses the
 * reserve.
 */
const STEP_BYTES = 262_144;
/**
 * Extra room for bodies that are read to their end although there is no room, as a part of the capacity: one
 * for small bodies, and one for large ones. The largest body is not counted.
 */
const FINISHING = 1 / 10;
const SWEEP_EVERY_MS = 1_000;

const BODY = Symbol('body');

declare module 'fastify' {
  interface FastifyRequest {
    [BODY]?: IncomingBody;
  }
}

export type BodyDone = (error: AppError | null, body?: Buffer) => void;

/** A body that is arriving. */
interface Arriving {
  readonly key: ShareKey;
  readonly payload: IncomingMessage;
  readonly holds: Hold[];
  readonly end: (error: AppError | null) => void;
  pace: Pace;
  /** Its announced length, or else its maximum length. */
  readonly endBytes: number;
  received: number;
  /** Bytes that its holds cover. */
  held: number;
  /** While it waits for room: aborts the wait. */
  waiting: AbortController | undefined;
  isFinishing: boolean;
  hasEnded: boolean;
}

/** The body of a request, until the request is answered. */
interface IncomingBody extends Disposable {
  readonly isCutOff: boolean;
}

/**
 * Limits the memory of request bodies. A body takes room as it arrives and releases it when its request is
 * answered. Without room, the server stops reading it, and TCP makes the client wait, for 5 s at most
 * for each step.
 *
 * Partly read bodies that fill the room could deadlock. So for each subject, the large and the small body
 * that are nearest to their ends are read to them in extra room. The next ones follow once those are
 * answered. While more than half of the room is in use, slow bodies are refused, the slowest first.
 *
 * One class, because one list of bodies decides which wait, which are read to their end and which are
 * refused.
 */
export class BodyBufferBudget {
  readonly #share: Share;
  readonly #arriving = new Set<Arriving>();
  /** Those of them that wait for room. */
  readonly #waiting = new Set<Arriving>();
  /** For the bytes still to come of bodies that are read to their end without room. */
  readonly #extra: Readonly<Record<'small' | 'large', ExtraRoom>>;
  #cuts = 0;

  constructor(share: Share) {
    this.#share = share;
    const bytesMax = share.capacity * FINISHING;
    this.#extra = { small: new ExtraRoom(bytesMax), large: new ExtraRoom(bytesMax) };
  }

  /** Bodies that were refused because they were too slow. */
  get cuts(): number {
    return this.#cuts;
  }

  /**
   * Reads the body of a request. `done` receives it, or `payload_too_large`, `rate_limited`, `overloaded` or
   * `request_timeout`.
   */
  read(request: FastifyRequest, payload: IncomingMessage, done: BodyDone): void {
    const limit = request.routeOptions.bodyLimit;
    const announced = announcedBytes(payload);
    if (announced !== undefined && announced > limit) {
      done(new AppError('payload_too_large'));
      return;
    }
    const body = new GatheredBody(announced);
    let isOver = false;
    const leave = (): void => {
      isOver = true;
      payload.off('data', onData).off('end', onEnd).off('error', onError);
      this.#leave(arriving);
    };
    const end = (error: AppError | null): void => {
      if (isOver) return;
      leave();
      if (error === null) done(null, body.take());
      else {
        body.discard();
        done(error);
      }
    };
    const onData = (chunk: Buffer): void => {
      arriving.received += chunk.length;
      if (arriving.received > limit) {
        end(new AppError('payload_too_large'));
        return;
      }
      body.add(chunk);
      if (arriving.received > arriving.held) this.#grow(arriving);
    };
    const onEnd = (): void => {
      arriving.hasEnded = true;
      // The last chunk may wait for room.
      if (arriving.waiting === undefined) end(null);
    };
    const onError = (cause: Error): void => end(new AppError('invalid_request', { cause }));
    const arriving: Arriving = {
      ...{ key: shareOfRequest(request), payload, holds: [], end, pace: new Pace() },
      endBytes: announced ?? limit,
      ...{ received: 0, held: 0, waiting: undefined, isFinishing: false, hasEnded: false },
    };
    request[BODY] = {
      get isCutOff() {
        return !payload.complete;
      },
      [Symbol.dispose]: () => {
        if (!isOver) {
          leave();
          body.discard();
        }
        this.#giveBack(arriving);
      },
    };
    this.#arriving.add(arriving);
    payload.on('data', onData).on('end', onEnd).on('error', onError);
    payload.resume();
  }

  /**
   * Measures how fast bodies arrive. It refuses the slowest while more than half of the room is in use. It
   * also refuses bodies of the subject that holds most of it while others wait. Call it each second.
   */
  sweep(): void {
    for (const { pace, received } of this.#arriving) pace.note(received);
    const half = this.#share.capacity / 2;
    for (const body of slowest(this.#read())) {
      if (this.#share.held <= half) break;
      this.#cut(body);
    }
    this.#cutGreedy();
  }

  /** A fast body may still hold its room for long. */
  #cutGreedy(): void {
    for (;;) {
      const subject = this.#share.greedySubject(MAKE_ROOM_AFTER_MS);
      if (subject === undefined) return;
      // A small body in extra room frees none, and the next one of its subject takes its place.
      const theirs = bySpeed(this.#read()).filter(
        ({ key, held, isFinishing, endBytes }) =>
          key.subject === subject && held > 0 && !(isFinishing && endBytes <= SMALL_BYTES_MAX),
      );
      // While one body uses extra room, the end of another may free none.
      const next = theirs.find(({ isFinishing }) => isFinishing) ?? theirs[0];
      if (next === undefined) return;
      this.#cut(next);
    }
  }

  /** Bodies that wait for room are not slow clients. */
  #read(): Arriving[] {
    return [...this.#arriving].filter(({ waiting }) => waiting === undefined);
  }

  #cut(body: Arriving): void {
    this.#cuts++;
    const detail = `the body came too slowly while ${this.#share.name} were scarce`;
    body.end(new AppError('request_timeout', { detail }));
    // Now, not when the refusal has been sent.
    this.#giveBack(body);
  }

  /** Takes room for what has arrived, or stops reading until there is some. */
  #grow(body: Arriving): void {
    const { key, endBytes, held, received, holds } = body;
    const step = endBytes <= SMALL_BYTES_MAX ? endBytes : Math.min(STEP_BYTES, endBytes - held);
    const units = Math.max(received - held, step);
    const hold = this.#share.tryTake(key, units);
    if (hold === undefined) {
      void this.#wait(body, units);
      return;
    }
    holds.push(hold);
    body.held += units;
  }

  async #wait(body: Arriving, units: number): Promise<void> {
    const { key, payload, holds } = body;
    const waiting = new AbortController();
    body.waiting = waiting;
    this.#waiting.add(body);
    payload.pause();
    const taken = this.#share.take(key, units, waiting.signal);
    this.#finishNext();
    try {
      const hold = await taken;
      if (waiting.signal.aborted) {
        hold[Symbol.dispose]();
        return;
      }
      holds.push(hold);
      body.held += units;
    } catch (error) {
      if (!waiting.signal.aborted) body.end(error as AppError);
      return;
    }
    this.#readOn(body);
  }

  #readOn(body: Arriving): void {
    this.#endWait(body);
    body.pace = new Pace();
    if (body.hasEnded) body.end(null);
    else body.payload.resume();
  }

  #endWait(body: Arriving): void {
    body.waiting = undefined;
    this.#waiting.delete(body);
  }

  /**
   * Lets waiting bodies be read to their end: of the subject that holds least, the one nearest to its end.
   */
  #finishNext(): void {
    for (;;) {
      let next: Arriving | undefined;
      for (const body of this.#waiting)
        if (this.#mayFinish(body) && (!next || this.#isBefore(body, next))) next = body;
      if (next === undefined) return;
      const { key, holds, endBytes, held, waiting } = next;
      const rest = endBytes - held;
      this.#extraOf(next).enter(key.subject, rest);
      next.isFinishing = true;
      holds.push(this.#share.charge(key, rest));
      next.held = endBytes;
      waiting?.abort();
      this.#readOn(next);
    }
  }

  #mayFinish(body: Arriving): boolean {
    return this.#extraOf(body).hasRoom(body.key.subject, body.endBytes - body.held);
  }

  #extraOf({ endBytes }: Arriving): ExtraRoom {
    return this.#extra[endBytes <= SMALL_BYTES_MAX ? 'small' : 'large'];
  }

  #isBefore(one: Arriving, other: Arriving): boolean {
    const more = this.#share.heldBy(one.key.subject) - this.#share.heldBy(other.key.subject);
    return more < 0 || (more === 0 && one.endBytes - one.received < other.endBytes - other.received);
  }

  #leave(body: Arriving): void {
    if (!this.#arriving.delete(body)) return;
    body.waiting?.abort();
    this.#endWait(body);
  }

  /**
   * Releases the room of a body. One in extra room makes way for the next only now: it is in memory until its
   * answer.
   */
  #giveBack(body: Arriving): void {
    for (const hold of body.holds.splice(0)) hold[Symbol.dispose]();
    if (!body.isFinishing) return;
    body.isFinishing = false;
    this.#extraOf(body).leave(body.key.subject);
    this.#finishNext();
  }
}

/** The length of the body that a request announces; undefined when it is unknown. */
function announcedBytes({ headers }: IncomingMessage): number | undefined {
  if (headers['transfer-encoding'] !== undefined) return undefined;
  return Number(headers['content-length'] ?? 0);
}

const budgets = new WeakMap<object, BodyBufferBudget>();

/** Limits the request bodies of a server. */
export function limitBufferedBodies(app: FastifyInstance, share: Share): void {
  const budget = new BodyBufferBudget(share);
  budgets.set(app.server, budget);
  sweepUntilClosed(app, SWEEP_EVERY_MS, () => budget.sweep());
  app.addHook('onSend', (request, reply, payload, done) => {
    const body = request[BODY];
    if (body !== undefined) {
      if (body.isCutOff) reply.header('connection', 'close');
      body[Symbol.dispose]();
      delete request[BODY];
    }
    done(null, payload);
  });
}

/** The budget for the bodies of a server. */
export function bodyBudgetOf(app: FastifyInstance): BodyBufferBudget {
  const budget = budgets.get(app.server);
  if (budget === undefined) throw new Error('the server does not limit its bodies');
  return budget;
}

/** Reads the body of a request as bytes, for content type parsers. */
export function readBody(request: FastifyRequest, payload: IncomingMessage, done: BodyDone): void {
  bodyBudgetOf(request.server).read(request, payload, done);
}
