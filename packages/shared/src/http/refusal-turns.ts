import type { EventEmitter } from 'node:events';
import type { ProblemCode } from '../contract/problem.ts';
import type { Clock } from '../runtime/clock.ts';

/** Refusals that a server sends in a second, and at once after a pause. */
const REFUSALS_PER_S = 1_000;
const BURST = 100;
const RELEASE_EVERY_MS = 10;

/** Refusals of what a client may send in floods. Others are the answers of allowed requests. */
const OF_FLOODS: ReadonlySet<ProblemCode> = new Set([
  ...(['unauthenticated', 'forbidden', 'not_found', 'method_not_allowed'] as const),
  ...(['rate_limited', 'overloaded'] as const),
]);

/**
 * Bounds the rate at which a server refuses requests. Clients that repeat refused requests at once would
 * otherwise keep the event loop busy. Beyond the rate, a refusal waits for its turn; addresses take turns. So
 * the few refusals of one client do not wait for the flood of another.
 *
 * A connection begins no other request before the refusal is sent, so one at most waits on each.
 */
export class RefusalTurns {
  readonly #clock: Clock;
  #credit = BURST;
  #creditMs: number;
  /** What sends each waiting refusal, by address in the order of their turns. */
  readonly #waiting = new Map<string, Set<() => void>>();
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#creditMs = clock.monotonic();
  }

  /** Number of waiting refusals. */
  get waiting(): number {
    return this.#waiting.values().reduce((sum, { size }) => sum + size, 0);
  }

  /**
   * Waits for the turn of a refusal, or until its connection closes.
   *
   * @returns undefined when it may be sent at once.
   */
  take(code: ProblemCode, address: string, connection: EventEmitter): Promise<void> | undefined {
    if (!OF_FLOODS.has(code) || this.#isClosed) return undefined;
    this.#refill();
    if (this.#waiting.size === 0 && this.#credit >= 1) {
      this.#credit--;
      return undefined;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    const send = (): void => {
      this.#remove(address, send);
      connection.off('close', send);
      resolve();
    };
    connection.once('close', send);
    this.#waiting.set(address, (this.#waiting.get(address) ?? new Set()).add(send));
    this.#releaseSoon();
    return promise;
  }

  /** Sends as many waiting refusals as may be sent now. A timer calls it while any wait. */
  release(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#refill();
    for (; this.#credit >= 1 && this.#waiting.size > 0; this.#credit--) {
      const [[address, sends]] = this.#waiting as unknown as [[string, Set<() => void>]];
      const [send] = sends as unknown as [() => void];
      send();
      // The turn of the next address.
      if (this.#waiting.delete(address)) this.#waiting.set(address, sends);
    }
    this.#releaseSoon();
  }

  /** Sends all that wait; none waits from now on. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    for (const sends of [...this.#waiting.values()]) for (const send of sends) send();
  }

  #remove(address: string, send: () => void): void {
    const sends = this.#waiting.get(address);
    sends?.delete(send);
    if (sends?.size === 0) this.#waiting.delete(address);
  }

  #refill(): void {
    const nowMs = this.#clock.monotonic();
    const more = ((nowMs - this.#creditMs) * REFUSALS_PER_S) / 1_000;
    this.#credit = Math.min(BURST, this.#credit + more);
    this.#creditMs = nowMs;
  }

  #releaseSoon(): void {
    if (this.#waiting.size === 0 || this.#timer !== undefined || this.#isClosed) return;
    this.#timer = setTimeout(() => this.release(), RELEASE_EVERY_MS).unref();
  }
}
