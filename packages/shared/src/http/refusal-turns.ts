import type { EventEmitter } from 'node:events';
import { CODES_OF_FLOODS } from '../contract/app-error.ts';
import type { ProblemCode } from '../contract/problem.ts';
import type { Clock } from '../runtime/clock.ts';
import { RateLimit } from '../runtime/rate-limit.ts';
import { RoundRobin } from '../runtime/round-robin.ts';

/** Refusals that a server sends in a second, and at once after a pause. */
const RATE = { perSecond: 1_000, burst: 100 };
/** The rate is that of all callers. */
const ALL = '';
const RELEASE_EVERY_MS = 10;

/**
 * Bounds the rate at which a server refuses requests. Clients that repeat refused requests at once would
 * otherwise keep the event loop busy. Beyond the rate, a refusal waits for its turn; addresses take turns. So
 * the few refusals of one client do not wait for the flood of another.
 *
 * A connection begins no other request before the refusal is sent, so one at most waits on each.
 */
export class RefusalTurns {
  readonly #rate: RateLimit;
  /** What sends each waiting refusal, by address. */
  readonly #waiting = new RoundRobin<() => void>();
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  constructor(clock: Clock) {
    this.#rate = new RateLimit({ clock, ...RATE });
  }

  /** Number of waiting refusals. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /**
   * Waits for the turn of a refusal, or until its connection closes.
   *
   * @returns undefined when it may be sent at once.
   */
  take(code: ProblemCode, address: string, connection: EventEmitter): Promise<void> | undefined {
    return CODES_OF_FLOODS.has(code) ? this.takeAny(address, connection) : undefined;
  }

  /** As {@link take}, for an answer to bytes that are no request. */
  takeAny(address: string, connection: EventEmitter): Promise<void> | undefined {
    if (this.#isClosed) return undefined;
    if (this.#waiting.size === 0 && this.#maySend()) return undefined;
    const { promise, resolve } = Promise.withResolvers<void>();
    const send = (): void => {
      this.#waiting.remove(address, send);
      connection.off('close', send);
      resolve();
    };
    connection.once('close', send);
    this.#waiting.add(address, send);
    this.#releaseSoon();
    return promise;
  }

  /** Sends as many waiting refusals as may be sent now. A timer calls it while any wait. */
  release(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    while (this.#waiting.size > 0 && this.#maySend()) this.#waiting.next()?.();
    this.#releaseSoon();
  }

  /** Sends all that wait; none waits from now on. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    while (this.#waiting.size > 0) this.#waiting.next()?.();
  }

  /** Counts a refusal if it may be sent now. */
  #maySend(): boolean {
    if (this.#rate.waitMs(ALL) > 0) return false;
    this.#rate.charge(ALL, 1);
    return true;
  }

  #releaseSoon(): void {
    if (this.#waiting.size === 0 || this.#timer !== undefined || this.#isClosed) return;
    this.#timer = setTimeout(() => this.release(), RELEASE_EVERY_MS).unref();
  }
}
