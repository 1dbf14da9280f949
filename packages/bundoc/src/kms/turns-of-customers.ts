import { Pool } from '@bundoc/shared/admission/pool';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { Clock } from '@bundoc/shared/runtime/clock';

/**
 * Connections that one outside key may have, as many as BunKMS makes calls of it. All keys whose outside key
 * is unknown have as many together.
 */
const OF_OUTSIDE_KEY = 8;
const RETRY_AFTER_S = 2;

/** The connections for keys of customers. The outside key goes first that has used least of them. */
export class TurnsOfCustomers {
  readonly #places: Pool;
  readonly #clock: Clock;

  constructor(capacity: number, waitMs: number, clock: Clock) {
    const sizes = { capacity, subjectMax: OF_OUTSIDE_KEY, waitMs };
    this.#places = new Pool({ name: 'connections of customers', ...sizes, clock });
    this.#clock = clock;
  }

  /**
   * Runs a call once it is its turn.
   *
   * @param outsideKey empty while it is unknown.
   * @param signal ends a wait, with its reason.
   * @throws AppError `kms_unavailable` when too many wait, or for too long, and what `call` throws.
   */
  async run<T>(outsideKey: string, call: () => Promise<T>, signal: AbortSignal): Promise<T> {
    const waiting = this.#places.take({ subject: outsideKey, project: '' }, 1, signal);
    using place = await waiting.catch((cause) => {
      throw new AppError('kms_unavailable', { cause, retryAfterS: RETRY_AFTER_S });
    });
    const begunMs = this.#clock.monotonic();
    try {
      return await call();
    } finally {
      this.#places.accounts.charge(place.account, (this.#clock.monotonic() - begunMs) * 1_000);
    }
  }
}
