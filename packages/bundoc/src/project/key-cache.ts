import { ageMs, type Clock, type Instant, instant } from '@bundoc/shared/clock';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { AppError, hasCode } from '@bundoc/shared/errors';
import { LRUCache } from 'lru-cache';
import { KeyRefused, type KeyService, type LeasedKey } from '../kms/port.ts';

export interface KeyCacheOptions {
  readonly keys: KeyService;
  readonly clock: Clock;
  /** Longest time that a key is kept, milliseconds; a shorter lease wins. */
  readonly ttlMs: number;
  /** Keys that are kept at most; the one used longest ago goes first. */
  readonly keysMax?: number;
  /** Keys that are fetched at the same time at most; further ones wait for room. */
  readonly fetchesMax?: number;
  /** Told of the end of every fetch. */
  readonly onFetch?: (outcome: FetchOutcome) => void;
}

/**
 * `refused`: there is no such key, somebody has disabled or destroyed it, or this storage does not hold it; that is as it should be.
 * `failed`: anything else, which is not.
 */
export type FetchOutcome = 'fetched' | 'refused' | 'failed';

/** Refusals that follow from what somebody wanted. */
const AS_INTENDED = [
  'KEY_NOT_FOUND',
  'project_disabled',
  'project_deleting',
  'project_destroyed',
  'project_elsewhere',
  'key_unheld',
] as const;

/** Part of its time after which a key that is in use is fetched anew, in the background. */
const REFRESH_AT = 0.8;
/** How long a failed fetch is remembered, so that an outage does not become a storm. */
const FAILURE_MEMORY_MS = 1_000;
/** How long a cold caller waits for room among the fetches. */
const WAIT_FOR_ROOM_MS = 4_500;
const WAITING_MAX = 1_000;
/** Keys that are asked for anew at the same time after a gap in the events; cold projects need the rest of the room. */
const REVALIDATIONS_MAX = 8;
/** How often one caller's key is asked for again because an event overtook the answer. */
const OVERTAKEN_MAX = 3;

/** A key in the cache. */
interface KeptKey {
  readonly key: LeasedKey;
  /** True when the key service may have changed it since; it serves until it is known better, at most to its end. */
  isStale: boolean;
}

/** A key under way. */
interface Fetch {
  readonly key: Promise<LeasedKey>;
  /** Set when what is under way may be from before an event. */
  readonly overtake: () => void;
}

/**
 * The DEKs of the projects in use, for 15 minutes at most.
 *
 * The time is hard: it counts from before the key was asked for, by the wall clock and by the monotonic one, and no
 * key is handed out after it. Concurrent callers share one fetch, which no caller can cancel. A key in use is fetched
 * anew from 80 % of its time on; when that fails the present one serves until its end. Keys under way are not in the
 * LRU, so nothing evicts them (ADR 0004 says why this is not lru-cache's `fetchMethod`).
 */
export class KeyCache {
  readonly #options: KeyCacheOptions;
  readonly #kept: LRUCache<string, KeptKey>;
  readonly #fetching = new Map<string, Fetch>();
  readonly #failures = new LRUCache<string, { error: unknown; at: Instant }>({ max: 1_000 });
  readonly #fetchesMax: number;
  readonly #waiting: (() => void)[] = [];
  #fetchesRunning = 0;
  #isRevalidating = false;

  constructor(options: KeyCacheOptions) {
    this.#options = options;
    this.#fetchesMax = options.fetchesMax ?? 32;
    this.#kept = new LRUCache({ max: options.keysMax ?? 1_000 });
  }

  /** Number of keys that are kept. */
  get size(): number {
    return this.#kept.size;
  }

  /** The key, if it is here and may still be used. Starts a background fetch when most of its time is over. */
  peek(project: string, version?: number): LeasedKey | undefined {
    const id = idOf(project, version);
    const key = this.#kept.get(id)?.key;
    if (key === undefined) return undefined;
    const age = ageMs(this.#options.clock, key.requestedAt);
    const ttlMs = this.#ttlOf(key);
    if (age >= ttlMs) {
      this.#kept.delete(id);
      return undefined;
    }
    if (age >= ttlMs * REFRESH_AT) this.#refresh(project, version);
    return key;
  }

  /** True while the key is here and may be used. Unlike {@link peek}, this is no use of the key. */
  has(project: string, version?: number): boolean {
    const kept = this.#kept.peek(idOf(project, version));
    return kept !== undefined && !this.#isOver(kept.key);
  }

  /**
   * The key, from here or from the key service.
   *
   * @param version the current one when absent.
   * @throws AppError as {@link KeyService.exportKey}; `overloaded` when there was no room in time.
   */
  async get(project: string, version?: number): Promise<LeasedKey> {
    const key = this.peek(project, version);
    if (key !== undefined) return key;
    const failure = this.#recentFailure(idOf(project, version));
    if (failure !== undefined) throw failure.error;
    return this.#fetch(project, version);
  }

  /**
   * Has the key service make a new version and fetches it. What is kept of the former one is replaced, so whoever looks
   * next finds another key than before.
   */
  async rotate(project: string, version: number): Promise<void> {
    await this.#options.keys.rotateKey(dekNameOf(project), version);
    await this.#fetch(project, undefined);
  }

  /** Makes the project's key, unless somebody was first, and fetches it. @throws AppError as {@link get}. */
  async create(project: string): Promise<LeasedKey> {
    await this.#options.keys.createKey(dekNameOf(project));
    this.#failures.delete(project);
    return this.get(project);
  }

  /** Makes this storage the holder of a key that nobody holds, and fetches it. @throws AppError as {@link get}. */
  async claim(project: string): Promise<LeasedKey> {
    await this.#options.keys.claimKey(dekNameOf(project));
    this.#failures.delete(project);
    return this.get(project);
  }

  /**
   * Forgets every key whose time is over, and asks again for those that may have changed. Keys are never handed out late in
   * any case; this frees their memory. To be called every second or so.
   */
  sweep(): void {
    for (const [id, { key }] of [...this.#kept.entries()]) {
      if (this.#isOver(key)) this.#kept.delete(id);
    }
    void this.#revalidateStale();
  }

  /** The current version may be another by now: it is fetched anew, and the present one serves meanwhile. */
  revalidate(project: string): void {
    this.#fetching.get(project)?.overtake();
    const kept = this.#kept.peek(project);
    if (kept === undefined) return;
    kept.isStale = true;
    this.#fetch(project, undefined).catch(() => undefined); // Still stale: the next sweep asks again.
  }

  /** {@link revalidate} for every key, in every version. One that the key service refuses is dropped. */
  revalidateAll(): void {
    for (const { overtake } of this.#fetching.values()) overtake();
    for (const kept of this.#kept.values()) kept.isStale = true;
    void this.#revalidateStale();
  }

  /** Drops the project's key in every version, and that it was refused. What is under way is from before, and is asked for again. */
  evict(project: string): void {
    const isOfProject = (id: string) => id === project || id.startsWith(`${project}@`);
    for (const [id, { overtake }] of this.#fetching) if (isOfProject(id)) overtake();
    for (const known of [this.#kept, this.#failures])
      for (const id of [...known.keys()]) if (isOfProject(id)) known.delete(id);
  }

  /** Drops every key. What is under way is asked for again. */
  evictAll(): void {
    for (const { overtake } of this.#fetching.values()) overtake();
    this.#kept.clear();
    this.#failures.clear();
  }

  /** Asks for each key that may have changed, until all were asked for; a failure is left to the next sweep. */
  async #revalidateStale(): Promise<void> {
    if (this.#isRevalidating) return;
    this.#isRevalidating = true;
    const stale = this.#kept.entries().filter(([, { isStale }]) => isStale);
    const ids = [...stale].map(([id]) => id);
    const work = async () => {
      for (let id = ids.pop(); id !== undefined; id = ids.pop()) {
        if (this.#recentFailure(id) !== undefined) continue;
        const { project, version } = partsOf(id);
        await this.#fetch(project, version).catch(() => undefined);
      }
    };
    await Promise.all(Array.from({ length: REVALIDATIONS_MAX }, work));
    this.#isRevalidating = false;
  }

  #recentFailure(id: string): { error: unknown } | undefined {
    const failure = this.#failures.get(id);
    if (failure === undefined || ageMs(this.#options.clock, failure.at) < FAILURE_MEMORY_MS) return failure;
    this.#failures.delete(id);
    return undefined;
  }

  #isOver(key: LeasedKey): boolean {
    return ageMs(this.#options.clock, key.requestedAt) >= this.#ttlOf(key);
  }

  #ttlOf(key: LeasedKey): number {
    return Math.min(this.#options.ttlMs, key.ttlMs);
  }

  #refresh(project: string, version: number | undefined): void {
    const id = idOf(project, version);
    if (this.#fetching.has(id) || this.#recentFailure(id) !== undefined) return;
    if (this.#fetchesRunning >= this.#fetchesMax) return; // A cold project needs the room more.
    this.#fetch(project, version).catch(() => undefined); // Remembered; the present key serves until its end.
  }

  #fetch(project: string, version: number | undefined): Promise<LeasedKey> {
    const id = idOf(project, version);
    const running = this.#fetching.get(id);
    if (running !== undefined) return running.key;
    let isOvertaken = false;
    const ask = async () => {
      for (let tries = 0; tries < OVERTAKEN_MAX; tries++) {
        isOvertaken = false;
        const key = await this.#options.keys.exportKey(dekNameOf(project), version);
        if (!isOvertaken) return key;
      }
      throw new AppError('kms_unavailable', { retryAfterS: 1 });
    };
    const key = this.#fetchAndKeep(id, ask).finally(() => this.#fetching.delete(id));
    const overtake = () => {
      isOvertaken = true;
    };
    this.#fetching.set(id, { key, overtake });
    return key;
  }

  async #fetchAndKeep(id: string, ask: () => Promise<LeasedKey>): Promise<LeasedKey> {
    await this.#enter();
    try {
      const key = await ask();
      if (this.#isOver(key))
        throw new AppError('kms_unavailable', {
          cause: new Error('the key came after its time'),
          retryAfterS: 1,
        });
      this.#kept.set(id, { key, isStale: false });
      this.#options.onFetch?.('fetched');
      return key;
    } catch (error) {
      this.#failures.set(id, { error, at: instant(this.#options.clock) });
      // The key service says that the key is gone, held back, another, or not for us: what is kept here must not outlive that.
      if (isRefusal(error)) this.#kept.delete(id);
      this.#options.onFetch?.(hasCode(error, ...AS_INTENDED) ? 'refused' : 'failed');
      throw error;
    } finally {
      this.#leave();
    }
  }

  /** Waits for room among the fetches, first come first served. */
  async #enter(): Promise<void> {
    if (this.#fetchesRunning < this.#fetchesMax) {
      this.#fetchesRunning++;
      return;
    }
    if (this.#waiting.length >= WAITING_MAX) throw new AppError('overloaded');
    await new Promise<void>((resolve, reject) => {
      const enter = () => {
        clearTimeout(timer);
        resolve(); // The one that leaves hands its place over, so the count stays.
      };
      const timer = setTimeout(() => {
        this.#waiting.splice(this.#waiting.indexOf(enter), 1);
        reject(new AppError('overloaded'));
      }, WAIT_FOR_ROOM_MS);
      this.#waiting.push(enter);
    });
  }

  #leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#fetchesRunning--;
    else next();
  }
}

function isRefusal(error: unknown): boolean {
  return (
    hasCode(error, ...AS_INTENDED, 'key_mismatch', 'storage_superseded') ||
    (error instanceof AppError && error.cause instanceof KeyRefused)
  );
}

function partsOf(id: string): { project: string; version: number | undefined } {
  const [project = '', version] = id.split('@');
  return { project, version: version === undefined ? undefined : Number(version) };
}

/** What a key is kept under. Project ids hold no `@`. */
function idOf(project: string, version: number | undefined): string {
  return version === undefined ? project : `${project}@${version}`;
}
