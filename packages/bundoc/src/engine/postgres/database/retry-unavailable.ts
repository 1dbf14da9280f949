import { setTimeout as sleep } from 'node:timers/promises';
import { hasCode } from '@bundoc/shared/contract/app-error';
import { backoffMs } from '@bundoc/shared/runtime/backoff';
import { ageMs, type Clock, instant } from '@bundoc/shared/runtime/clock';

/** Maximum wait of a caller while the server is unavailable: a failover may take that long. */
const RETRY_FOR_MS = 4_500;
const BOUNDS = { firstMs: 25, maxMs: 400 };

/** Waits between the attempts of one action, until the time is up. */
export class Backoff {
  readonly #clock: Clock;
  readonly #begun;
  #failures = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#begun = instant(clock);
  }

  /** @throws `error` when there is no time for another attempt. */
  async wait(error: unknown): Promise<void> {
    if (ageMs(this.#clock, this.#begun) >= RETRY_FOR_MS) throw error;
    await sleep(backoffMs(BOUNDS, ++this.#failures));
  }
}

/** Runs the read-only `read`, and retries it while the server is unavailable. */
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
