import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { REQUEST_US } from '../admission/account.ts';
import { type Gate, HEAVY } from '../admission/gate.ts';
import type { Hold, Pool } from '../admission/pool.ts';
import { enterShare, type Places } from '../shares/share-key.ts';
import { disconnectSignal } from './disconnect-signal.ts';
import { authorizedShare } from './guard.ts';

const PLACES = Symbol('places');

declare module 'fastify' {
  interface FastifyRequest {
    [PLACES]?: RequestPlaces;
  }

  interface FastifyContextConfig {
    /** Places that a request takes at the gate; 1 by default, 8 with `fields`. With 0, it never waits. */
    places?: number | ((request: FastifyRequest) => number);
  }
}

/** `config` of a route whose requests hold many documents. */
export const HOLDS_MANY = { places: HEAVY } as const;

/** `config` of a route that has a bound of its own or must not wait for other requests. */
export const WITHOUT_PLACE = { places: 0 } as const;

/** The places of a request. */
class RequestPlaces implements Places, Disposable {
  readonly #pool: Pool;
  readonly #hold: Hold;
  /** Unset after the answer, so that a long-lived asynchronous context does not keep the body in memory. */
  #reply: FastifyReply | undefined;
  readonly #units: number;
  #waits = 0;

  constructor(pool: Pool, hold: Hold, reply: FastifyReply) {
    this.#pool = pool;
    this.#hold = hold;
    this.#reply = reply;
    this.#units = hold.units;
  }

  leave(): void {
    this.#waits++;
    this.#hold.resize(0);
  }

  async enter(): Promise<void> {
    if (--this.#waits > 0 || this.#reply === undefined) return;
    const { account } = this.#hold;
    const key = { subject: account.subject.id, project: account.id };
    // No request with places waits for one without, so this cannot deadlock.
    using _taken = await this.#pool.take(key, this.#units, disconnectSignal(this.#reply));
    this.#hold.resize(this.#units);
  }

  [Symbol.dispose](): void {
    this.#reply = undefined;
    this.#hold[Symbol.dispose]();
  }
}

/**
 * Lets authorized requests pass the gate once their bodies are complete, and charges their work to their
 * accounts. A request has its places until its answer is ready. It needs none while the answer is sent.
 */
export function passGate(app: FastifyInstance, { places, accounts }: Gate): void {
  // Not in the guard: reading the body would lose the asynchronous context that this enters.
  app.addHook('preHandler', (request, reply, done) => {
    const key = authorizedShare(request);
    if (key === undefined) {
      done();
      return;
    }
    const pass = (hold?: Hold): void => {
      if (hold !== undefined) {
        accounts.charge(hold.account, REQUEST_US);
        request[PLACES] = new RequestPlaces(places, hold, reply);
      }
      enterShare(key, request[PLACES]);
      done();
    };
    const count = placesOf(request);
    const hold = count > 0 ? places.tryTake(key, count) : undefined;
    if (hold !== undefined || count === 0) pass(hold);
    else void places.take(key, count, disconnectSignal(reply)).then(pass, done);
  });
  app.addHook('onSend', (request, _reply, payload, done) => {
    giveBackPlaces(request);
    done(null, payload);
  });
}

function placesOf(request: FastifyRequest): number {
  const { places } = request.routeOptions.config;
  if (places !== undefined) return typeof places === 'number' ? places : places(request);
  return (request.query as { readonly fields?: string } | undefined)?.fields === undefined ? 1 : HEAVY;
}

/** Gives the places of a request back. It cannot get them again. */
export function giveBackPlaces(request: FastifyRequest): void {
  request[PLACES]?.[Symbol.dispose]();
}

/** Takes an answer from Fastify, which then sends nothing itself. The request gives its places back. */
export function answerByHand(request: FastifyRequest, reply: FastifyReply): FastifyReply {
  giveBackPlaces(request);
  return reply.hijack();
}

/** The places of a request, if it has any. */
export function placesOfRequest(request: FastifyRequest): Places | undefined {
  return request[PLACES];
}
