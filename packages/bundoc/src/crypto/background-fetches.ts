import type { Clock } from '@bundoc/shared/runtime/clock';
import { runInShare } from '@bundoc/shared/shares/share-key';
import { TokenBucket } from './token-bucket.ts';

/** Maximum number of concurrent background fetches. */
const RUNNING_MAX = 8;
/** They count against the service itself, not against the request that starts them. */
const OWN = { subject: '', project: '' };

export interface BackgroundFetchesOptions {
  readonly clock: Clock;
  /** Whether a key is to be fetched: now, not at all, or once its running or failed fetch is over. */
  readonly turnOf: (id: string) => 'now' | 'later' | 'never';
  /** The present maximum rate. */
  readonly perSecond: () => number;
  readonly fetch: (id: string) => Promise<unknown>;
}

/** Keys that are fetched in the background, in order of arrival, at a bounded rate and few at a time. */
export class BackgroundFetches {
  readonly #options: BackgroundFetchesOptions;
  readonly #ids = new Set<string>();
  readonly #tokens: TokenBucket;
  #running = 0;

  constructor(options: BackgroundFetchesOptions) {
    this.#options = options;
    this.#tokens = new TokenBucket(options.clock);
  }

  /** Those that wait for their turn. */
  get size(): number {
    return this.#ids.size;
  }

  has(id: string): boolean {
    return this.#ids.has(id);
  }

  add(id: string): void {
    this.#ids.add(id);
  }

  /** Starts fetches while there are tokens, and few run. */
  start(): void {
    const { turnOf, perSecond, fetch } = this.#options;
    for (const id of this.#ids) {
      if (this.#running >= RUNNING_MAX) return;
      const turn = turnOf(id);
      if (turn === 'never') this.#ids.delete(id);
      if (turn !== 'now') continue;
      if (!this.#tokens.take(perSecond())) return;
      this.#ids.delete(id);
      this.#running++;
      runInShare(OWN, () => fetch(id))
        .catch(() => undefined) // The failure is cached; the current key stays usable until its end.
        .finally(() => {
          this.#running--;
          this.start();
        });
    }
  }
}
