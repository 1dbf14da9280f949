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
  /** Which keys may be slow together: at most half of those that run are of one. */
  readonly groupOf?: (id: string) => string | undefined;
}

/**
 * Keys that are fetched in the background, at a bounded rate and few at a time: the groups in turn, and there
 * in order of arrival. To start one costs no look at those that wait behind it.
 */
export class BackgroundFetches {
  readonly #options: BackgroundFetchesOptions;
  /** Those that wait, with their groups. */
  readonly #groups = new Map<string, string>();
  readonly #waiting = new Map<string, Set<string>>();
  readonly #tokens: TokenBucket;
  #running = 0;
  readonly #runningOf = new Map<string, number>();

  constructor(options: BackgroundFetchesOptions) {
    this.#options = options;
    this.#tokens = new TokenBucket(options.clock);
  }

  /** Those that wait for their turn. */
  get size(): number {
    return this.#groups.size;
  }

  has(id: string): boolean {
    return this.#groups.has(id);
  }

  add(id: string): void {
    if (this.#groups.has(id)) return;
    const group = this.#options.groupOf?.(id) ?? '';
    this.#groups.set(id, group);
    const ids = this.#waiting.get(group) ?? new Set();
    this.#waiting.set(group, ids.add(id));
  }

  /** Starts fetches while there are tokens, and few run. */
  start(): void {
    while (this.#running < RUNNING_MAX) {
      const id = this.#next();
      if (id === undefined || !this.#tokens.take(this.#options.perSecond())) return;
      this.#run(id, this.#remove(id));
    }
  }

  #next(): string | undefined {
    const { turnOf, groupOf } = this.#options;
    const most = groupOf === undefined ? RUNNING_MAX : RUNNING_OF_GROUP_MAX;
    for (const [group, ids] of this.#waiting) {
      if ((this.#runningOf.get(group) ?? 0) >= most) continue;
      for (const id of ids) {
        const turn = turnOf(id);
        if (turn === 'now') return id;
        if (turn === 'never') this.#remove(id);
      }
    }
    return undefined;
  }

  /** @returns its group. */
  #remove(id: string): string {
    const group = this.#groups.get(id) ?? '';
    const ids = this.#waiting.get(group);
    this.#groups.delete(id);
    ids?.delete(id);
    if (ids?.size === 0) this.#waiting.delete(group);
    return group;
  }

  #run(id: string, group: string): void {
    const ids = this.#waiting.get(group);
    if (ids !== undefined) {
      this.#waiting.delete(group);
      this.#waiting.set(group, ids);
    }
    this.#count(group, 1);
    runInShare(OWN, () => this.#options.fetch(id))
      .catch(() => undefined) // The failure is cached; the current key stays usable until its end.
      .finally(() => {
        this.#count(group, -1);
        this.start();
      });
  }

  #count(group: string, change: 1 | -1): void {
    this.#running += change;
    const running = (this.#runningOf.get(group) ?? 0) + change;
    if (running === 0) this.#runningOf.delete(group);
    else this.#runningOf.set(group, running);
  }
}
