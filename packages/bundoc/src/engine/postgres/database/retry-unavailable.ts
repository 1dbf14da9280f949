import { setTimeout as sleep } from 'node:timers/promises';
import { hasCode } from '@bundoc/shared/contract/app-error';
import { backoffMs } from '@bundoc/shared/runtime/backoff';
import { ageMs, type Clock, instant } from '@bundoc/shared/runtime/clock';

/** How long a caller waits while the server cannot serve: a switch to a standby may be over by then. */
const RETRY_FOR_MS = 4_500;
const BOUNDS = { firstMs: 25, maxMs: 400 };

/** Waits between the tries of one action, until its time is over. */
export class Backoff {
  readonly #clock: Clock;
  readonly #begun;
  #failures = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#begun = instant(clock);
  }

  /** @throws `error` when there is no time for another try. */
  async wait(error: unknown): Promise<void> {
    if (ageMs(this.#clock, this.#begun) >= RETRY_FOR_MS) throw error;
    await sleep(backoffMs(BOUNDS, ++this.#failures));
  }
}

/** Runs `read`, which changes nothing, again while the server cannot serve. */
export async function retryUnavailable<T>(clock: Clock, read: () => Promise<T>): Promise<T> {
  let backoff: Backoff | undefined;
  for (;;) {
    try {
      return await read();
    } catch (error) {
      if (!hasCode(error, 'storage_unavailable')) throw error;
      backoff ??= new Backoff(clock);
      await backoff.wait(error);
    }
  }
}
