import { setTimeout as sleep } from 'node:timers/promises';
import { hasCode } from '@bundoc/shared/contract/app-error';
import { ageMs, type Clock, instant } from '@bundoc/shared/runtime/clock';

/**
 * How long a caller is kept waiting while the server cannot serve: a switch to a standby may be over by then.
 */
const PATIENCE_MS = 4_500;
const PAUSE_FIRST_MS = 25;
const PAUSE_MAX_MS = 400;

/**
 * Waits between tries, each wait longer than the last and a part of it random, until there has been enough
 * waiting.
 */
export class Backoff {
  readonly #clock: Clock;
  readonly #begun;
  #pauseMs = PAUSE_FIRST_MS;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#begun = instant(clock);
  }

  /** @throws `error` when there is no more time for another try. */
  async wait(error: unknown): Promise<void> {
    if (ageMs(this.#clock, this.#begun) >= PATIENCE_MS) throw error;
    await sleep(this.#pauseMs * (0.5 + Math.random() / 2));
    this.#pauseMs = Math.min(PAUSE_MAX_MS, this.#pauseMs * 2);
  }
}

/** Runs `read`, which changes nothing, again while the server cannot serve. */
export async function retryUnavailable<T>(clock: Clock, read: () => Promise<T>): Promise<T> {
  let patience: Backoff | undefined;
  for (;;) {
    try {
      return await read();
    } catch (error) {
      if (!hasCode(error, 'storage_unavailable')) throw error;
      patience ??= new Backoff(clock);
      await patience.wait(error);
    }
  }
}
