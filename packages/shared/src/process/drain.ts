import { setTimeout as sleep } from 'node:timers/promises';
import { wholeNumber } from './config.ts';

/** Maximum drain time, milliseconds. */
const DRAIN_MS_MAX = 600_000;

/** `BUNDOC_DRAIN_MS`, `BUNKMS_DRAIN_MS`. */
export const drainMs = wholeNumber(0, DRAIN_MS_MAX).default(3_000);

/**
 * The time between the stop signal and the stop. The service still serves, but `/ready` answers 503 and
 * answers close their connection. So load balancers send nothing more before the listener closes.
 */
export class Drain {
  /** The drain time, milliseconds. */
  readonly ms: number;
  #over: Promise<void> | undefined;

  constructor(ms: number) {
    this.ms = ms;
  }

  get isDraining(): boolean {
    return this.#over !== undefined;
  }

  /** Begins to drain. Idempotent; resolves when the time is over. */
  begin(): Promise<void> {
    this.#over ??= sleep(this.ms);
    return this.#over;
  }
}
