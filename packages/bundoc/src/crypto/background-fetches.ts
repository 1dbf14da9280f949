import type { Clock } from '@bundoc/shared/runtime/clock';
import { runInShare } from '@bundoc/shared/shares/share-key';
import { TokenBucket } from './token-bucket.ts';

/** Maximum number of concurrent background fetches. */
const RUNNING_MAX = 8;
const RUNNING_OF_GROUP_MAX = RUNNING_MAX / 2;
/** They count against the service itself, not against the request that starts them. */
const OWN = { subject: '', project: '' };

export interface BackgroundFetchesOptions {
  readonly clock: Clock;
  /** Whether a key is to be fetched: now, not at all, or once its running or failed fetch is over. */
  readonly turnOf: (id: string) => 'now' | 'later' | 'never';
  /** The present maximum rate. */
  readonly perSecond: () => number;
  readonly fetch: (id: string) => Promise<unknown>;
  /** Which keys may be slow together: half of those that run are of one group. By default they have none. */
  readonly groupOf?: (id: string) => string | undefined;
}

/** Keys that are fetched in the background, in order of arrival, at a bounded rate and few at a time. */
export class BackgroundFetches {
  readonly #options: BackgroundFetchesOptions;
  readonly #ids = new Set<string>();
  readonly #tokens: TokenBucket;
  #running = 0;
  readonly #runningOf = new Map<string, number>();

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
    const { turnOf, perSecond, groupOf } = this.#options;
    for (const id of this.#ids) {
      if (this.#running >= RUNNING_MAX) return;
      const turn = turnOf(id);
      if (turn === 'never') this.#ids.delete(id);
      if (turn !== 'now') continue;
      const group = groupOf?.(id);
      if (group !== undefined && (this.#runningOf.get(group) ?? 0) >= RUNNING_OF_GROUP_MAX) continue;
      if (!this.#tokens.take(perSecond())) return;
      this.#ids.delete(id);
      this.#run(id, group);
    }
  }

  #run(id: string, group: string | undefined): void {
    this.#count(group, 1);
    runInShare(OWN, () => this.#options.fetch(id))
      .catch(() => undefined) // The failure is cached; the current key stays usable until its end.
      .finally(() => {
        this.#count(group, -1);
        this.start();
      });
  }

  #count(group: string | undefined, change: 1 | -1): void {
    this.#running += change;
    if (group === undefined) return;
    const running = (this.#runningOf.get(group) ?? 0) + change;
    if (running === 0) this.#runningOf.delete(group);
    else this.#runningOf.set(group, running);
  }
}
