import type { Clock } from '../clock.ts';
import type { Logger } from '../logger.ts';

/** How often one client causes a line for one kind of refusal, milliseconds. */
export const REFUSAL_EVERY_MS = 1_000;
/** Pairs of a client and a kind that are remembered; those beyond it share one place a kind. */
export const REFUSALS_MAX = 1_024;
/** In the place of a client for which no place is left. */
export const OTHER_CLIENTS = 'others';

interface Refusals {
  readonly client: string;
  readonly kind: string;
  untilMs: number;
  /** Refusals since the last line. */
  count: number;
}

/**
 * Bounds what one client can write to the log: one line a second for each kind of refusal. The others are counted, and the count follows
 * as one line.
 */
export class RefusalLog {
  readonly #logger: Pick<Logger, 'info'>;
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #byKey = new Map<string, Refusals>();
  #timer: NodeJS.Timeout | undefined;

  constructor(logger: Pick<Logger, 'info'>, clock: Pick<Clock, 'monotonic'>) {
    this.#logger = logger;
    this.#clock = clock;
  }

  /** Whether a refusal gets a line of its own; otherwise it was counted. */
  take(client: string, kind: string): boolean {
    const known = this.#byKey.get(`${client} ${kind}`);
    if (known === undefined && this.#byKey.size >= REFUSALS_MAX) {
      this.flush();
      if (this.#byKey.size >= REFUSALS_MAX && client !== OTHER_CLIENTS) return this.take(OTHER_CLIENTS, kind);
    }
    const nowMs = this.#clock.monotonic();
    const refusals = known ?? { client, kind, untilMs: 0, count: 0 };
    if (known === undefined) this.#byKey.set(`${client} ${kind}`, refusals);
    else if (refusals.count > 0 || nowMs < refusals.untilMs) {
      refusals.count++;
      this.#timer ??= setTimeout(() => this.flush(), REFUSAL_EVERY_MS).unref();
      return false;
    }
    refusals.untilMs = nowMs + REFUSAL_EVERY_MS;
    return true;
  }

  /** Writes all counts, due or not. */
  close(): void {
    for (const refusals of this.#byKey.values()) refusals.untilMs = 0;
    this.flush();
    clearTimeout(this.#timer);
  }

  /** Writes the counts that are due, and forgets clients that were refused nothing for a while. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const nowMs = this.#clock.monotonic();
    let isWaiting = false;
    for (const [key, refusals] of this.#byKey) {
      if (nowMs >= refusals.untilMs) {
        if (refusals.count === 0) {
          this.#byKey.delete(key);
          continue;
        }
        const { client, kind, count } = refusals;
        this.#logger.info({ client, kind, count }, 'more refusals, not logged one by one');
        refusals.count = 0;
        refusals.untilMs = nowMs + REFUSAL_EVERY_MS;
      }
      isWaiting ||= refusals.count > 0;
    }
    if (isWaiting) this.#timer = setTimeout(() => this.flush(), REFUSAL_EVERY_MS).unref();
  }
}
