import { setTimeout as sleep } from 'node:timers/promises';
import { CODES_OF_FLOODS } from '../contract/app-error.ts';
import type { ProblemCode } from '../contract/problem.ts';
import { callerNetwork } from '../runtime/addresses.ts';
import type { Clock } from '../runtime/clock.ts';
import { RateLimit } from '../runtime/rate-limit.ts';

/** Maximum of refusals that one address (IPv6: /64) gets without a delay in a second. */
export const REFUSALS_PER_SECOND = 50;
const DELAY_MS = 250;

/**
 * Delays `rate_limited` refusals, and those of an address that causes many. Otherwise clients that repeat
 * refused requests at once would keep the event loop busy. During the delay, the connection begins no other
 * request.
 */
export class RefusalDelay {
  readonly #rate: RateLimit;
  readonly #delayMs: number;

  constructor(clock: Clock, delayMs = DELAY_MS) {
    this.#rate = new RateLimit({ clock, perSecond: REFUSALS_PER_SECOND, burst: REFUSALS_PER_SECOND });
    this.#delayMs = delayMs;
  }

  /**
   * @param code undefined for bytes that are no request.
   * @returns what the refusal waits for; undefined when it may be sent at once.
   */
  of(code: ProblemCode | undefined, address: string | undefined): Promise<void> | undefined {
    if (code !== undefined && !CODES_OF_FLOODS.has(code)) return undefined;
    const caller = callerNetwork(address);
    const isFlood = this.#rate.waitMs(caller) > 0;
    if (!isFlood) this.#rate.charge(caller, 1);
    return isFlood || code === 'rate_limited' ? sleep(this.#delayMs) : undefined;
  }
}
