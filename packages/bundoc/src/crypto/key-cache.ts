import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { ageMs, type Clock, type Instant, instant } from '@bundoc/shared/runtime/clock';
import type { Share } from '@bundoc/shared/shares/share';
import { runInShare, shareIn } from '@bundoc/shared/shares/share-key';
import { LRUCache } from 'lru-cache';
import { KeyRefused, type KeyService, type LeasedKey } from '../kms/port.ts';
import { createServiceShares } from '../work/service-shares.ts';
import { type KeptKey, KeptKeys } from './kept-keys.ts';
import { TokenBucket } from './token-bucket.ts';

export interface KeyCacheOptions {
  readonly keys: KeyService;
  readonly clock: Clock;
  /** Longest time that a key is kept, milliseconds; a shorter lease wins. */
  readonly ttlMs: number;
  /**
   * Keys that are kept at most beside those of projects that are held; the one used longest ago goes first.
   */
  readonly spareKeysMax?: number;
  /** The keys that are fetched at the same time. */
  readonly fetches?: Share;
  /** Told of the end of every fetch. */
  readonly onFetch?: (outcome: FetchOutcome) => void;
  /** From 0 to 1: when in its time a key in use is fetched again. */
  readonly random?: () => number;
}

/**
 * `refused`: there is no such key, somebody has disabled or destroyed it, or this storage does not hold it;
 * that is as it should be. `failed`: anything else, which is not.
 */
export type FetchOutcome = 'fetched' | 'refused' | 'failed';

/** Refusals that follow from what somebody wanted. */
const AS_INTENDED = [
  'key_not_found',
  'project_disabled',
  'project_deleting',
  'project_destroyed',
  'project_elsewhere',
  'key_unheld',
] as const;

/** A key in use is fetched again between these parts of its time. The moment is drawn once for each key. */
const REFRESH_FROM = 0.6;
const REFRESH_TO = 0.9;
/**
 * Background fetches a second at least. Many keys get the rate that spreads them evenly over the time they
 * are due.
 */
const BACKGROUND_PER_SECOND_MIN = 20;
/** How long a failed fetch is remembered, so that an outage does not become a storm. */
const FAILURE_MEMORY_MS = 1_000;
/** Keys that are fetched in the background at the same time; cold projects need the rest of the room. */
const BACKGROUND_MAX = 8;
const SPARE_KEYS_MAX = 1_000;
/** Background fetches are charged to the service itself, not to the request that starts them. */
const OWN = { subject: '', project: '' };
/** How often one caller's key is asked for again because an event overtook the answer. */
const OVERTAKEN_MAX = 3;

/** A key under way. */
interface Fetch {
  readonly key: Promise<LeasedKey>;
  /** Set when what is under way may be from before an event. */
  readonly overtake: () => void;
}

/**
 * The DEKs of the projects in use, for 15 minutes at most, and of some others.
 *
 * The time is hard: it counts from before the key was asked for, by the wall clock and by the monotonic one,
 * and no key is handed out after it. Concurrent callers share one fetch, which no caller can cancel. A key in
 * use is fetched again at a moment between 60 % and 90 % of its time; when that fails the present one serves
 * until its end. Such fetches share a token bucket with those that follow a gap in the events. They start
 * only when no cold project waits. Keys under way are not in the LRU, so nothing evicts them (ADR 0004).
 *
 * One class, because each way into the cache and out of it keeps the same bound on time.
 */
export class KeyCache {
  readonly #options: KeyCacheOptions;
  readonly #kept: KeptKeys;
  readonly #fetching = new Map<string, Fetch>();
  readonly #failures = new LRUCache<string, { error: unknown; at: Instant }>({ max: 1_000 });
  readonly #fetches: Share;
  /** Keys that are to be fetched in the background, first come first served. */
  readonly #background = new Set<string>();
  readonly #tokens: TokenBucket;
  #backgroundRunning = 0;

  constructor(options: KeyCacheOptions) {
    this.#options = options;
    this.#fetches = options.fetches ?? createServiceShares().keyFetches;
    this.#kept = new KeptKeys(options.clock, options.spareKeysMax ?? SPARE_KEYS_MAX);
    this.#tokens = new TokenBucket(options.clock);
  }

  /** Number of keys that are kept. */
  get size(): number {
    return this.#kept.size;
  }

  /** Fetches that wait: for room, or for their moment in the background. */
  get fetchesWaiting(): number {
    return this.#fetches.waiting + this.#background.size;
  }

  /**
   * Keeps all keys of a project, however many others come, until {@link release}. They still end at their
   * time.
   */
  hold(project: string): void {
    this.#kept.hold(project);
  }

  release(project: string): void {
    this.#kept.release(project);
  }

  /** Projects that are held and have lost a key since this was asked the last time. */
  takeLost(): readonly string[] {
    return this.#kept.takeLost();
  }

  /**
   * The key, if it is here and may still be used. Has it fetched in the background when its moment has come.
   */
  peek(project: string, version?: number): LeasedKey | undefined {
    const id = idOf(project, version);
    const kept = this.#kept.use(id);
    if (kept === undefined) return undefined;
    const age = ageMs(this.#options.clock, kept.key.requestedAt);
    if (age >= kept.ttlMs) {
      this.#kept.delete(id);
      return undefined;
    }
    if (age >= kept.refreshAtMs && !this.#background.has(id)) this.#refresh(id);
    return kept.key;
  }

  /** True while the key is here and may be used. Unlike {@link peek}, this does not count as a use. */
  has(project: string, version?: number): boolean {
    const kept = this.#kept.peek(idOf(project, version));
    return kept !== undefined && !this.#kept.isOver(kept);
  }

  /**
   * Until when the key that is here may be used, by the wall clock; undefined when {@link has} is false.
   * This does not count as a use.
   */
  usableUntil(project: string): number | undefined {
    const kept = this.#kept.peek(idOf(project, undefined));
    if (kept === undefined || this.#kept.isOver(kept)) return undefined;
    return this.#options.clock.now() + kept.ttlMs - ageMs(this.#options.clock, kept.key.requestedAt);
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
   * Has the key service make a new version and fetches it. What is kept of the former one is replaced, so
   * anyone who looks next finds another key than before.
   */
  async rotate(project: string, version: number): Promise<void> {
    await this.#options.keys.rotateKey(dekNameOf(project), version);
    await this.#fetch(project, undefined);
  }

  /**
   * Makes the project's key, unless there is one.
   *
   * @returns whether it was made. @throws AppError as {@link get}; a failure is remembered in the same way.
   */
  async create(project: string): Promise<boolean> {
    const failure = this.#recentFailure(project);
    // An export that was refused since there is no key, or none of this storage, is what is mended here.
    if (failure !== undefined && !hasCode(failure.error, 'key_not_found', 'key_unheld')) throw failure.error;
    try {
      const isMade = await this.#options.keys.createKey(dekNameOf(project));
      this.#failures.delete(project);
      return isMade;
    } catch (error) {
      this.#failures.set(project, { error, at: instant(this.#options.clock) });
      throw error;
    }
  }

  /**
   * Makes this storage the holder of a key that nobody holds, and fetches it. @throws AppError as
   * {@link get}.
   */
  async claim(project: string): Promise<LeasedKey> {
    await this.#options.keys.claimKey(dekNameOf(project));
    this.#failures.delete(project);
    return this.get(project);
  }

  /**
   * Forgets every key whose time is over, and has those fetched whose turn in the background has come. Keys
   * are never handed out late in any case; this frees their memory. To be called every second or so.
   */
  sweep(): void {
    this.#kept.dropEnded();
    this.#fetchInBackground();
  }

  /** The current version may be another by now: it is fetched again, and the present one serves meanwhile. */
  revalidate(project: string): void {
    this.#fetching.get(project)?.overtake();
    const kept = this.#kept.peek(project);
    if (kept === undefined) return;
    kept.isStale = true;
    this.#fetch(project, undefined).catch(() => undefined); // Still stale: it is asked for in the background.
  }

  /**
   * {@link revalidate} for every key and version, in the background. A key that the service refuses is
   * dropped.
   */
  revalidateAll(): void {
    for (const { overtake } of this.#fetching.values()) overtake();
    for (const kept of this.#kept.all()) {
      kept.isStale = true;
      this.#background.add(kept.id);
    }
    this.#fetchInBackground();
  }

  /**
   * Drops the project's key in every version, and that it was refused. What is under way is from before, and
   * is asked for again.
   */
  evict(project: string): void {
    const isOfProject = (id: string) => id === project || id.startsWith(`${project}@`);
    for (const [id, { overtake }] of this.#fetching) if (isOfProject(id)) overtake();
    for (const { id } of this.#kept.of(project)) this.#kept.delete(id);
    for (const id of [...this.#failures.keys()]) if (isOfProject(id)) this.#failures.delete(id);
  }

  /** Drops every key. What is under way is asked for again. */
  evictAll(): void {
    for (const { overtake } of this.#fetching.values()) overtake();
    this.#kept.clear();
    this.#failures.clear();
  }

  /** Has a key fetched in the background, in its turn. */
  #refresh(id: string): void {
    if (this.#fetching.has(id) || this.#recentFailure(id) !== undefined) return;
    this.#background.add(id);
    this.#fetchInBackground();
  }

  /** Fetches keys that wait for it, as far as there are tokens, and room that no cold project needs. */
  #fetchInBackground(): void {
    for (const id of this.#background) {
      const isRoomy = this.#backgroundRunning < BACKGROUND_MAX && this.#fetches.held < this.#fetches.capacity;
      if (!isRoomy || this.#fetches.waiting > 0) return;
      const kept = this.#kept.peek(id);
      if (kept === undefined || !this.#isDue(kept)) {
        this.#background.delete(id);
        continue;
      }
      if (this.#fetching.has(id) || this.#recentFailure(id) !== undefined) continue;
      if (!this.#tokens.take(this.#backgroundPerSecond)) return;
      this.#background.delete(id);
      this.#backgroundRunning++;
      const { project, version } = kept;
      runInShare(OWN, () => this.#fetch(project, version))
        .catch(() => undefined) // Remembered; the present key serves until its end.
        .finally(() => {
          this.#backgroundRunning--;
          this.#fetchInBackground();
        });
    }
  }

  get #backgroundPerSecond(): number {
    const dueWithinS = ((REFRESH_TO - REFRESH_FROM) * this.#options.ttlMs) / 1_000;
    return Math.max(BACKGROUND_PER_SECOND_MIN, this.#kept.size / dueWithinS);
  }

  #isDue({ key, isStale, refreshAtMs }: KeptKey): boolean {
    return isStale || ageMs(this.#options.clock, key.requestedAt) >= refreshAtMs;
  }

  #recentFailure(id: string): { error: unknown } | undefined {
    const failure = this.#failures.get(id);
    if (failure === undefined || ageMs(this.#options.clock, failure.at) < FAILURE_MEMORY_MS) return failure;
    this.#failures.delete(id);
    return undefined;
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
    const key = this.#fetchAndKeep(project, version, ask).finally(() => this.#fetching.delete(id));
    const overtake = () => {
      isOvertaken = true;
    };
    this.#fetching.set(id, { key, overtake });
    return key;
  }

  async #fetchAndKeep(
    project: string,
    version: number | undefined,
    ask: () => Promise<LeasedKey>,
  ): Promise<LeasedKey> {
    using _place = await this.#fetches.take(shareIn(project), 1);
    const id = idOf(project, version);
    const { clock, random = Math.random, onFetch } = this.#options;
    try {
      const key = await ask();
      const ttlMs = Math.min(this.#options.ttlMs, key.ttlMs);
      if (ageMs(clock, key.requestedAt) >= ttlMs)
        throw new AppError('kms_unavailable', {
          cause: new Error('the key came after its time'),
          retryAfterS: 1,
        });
      const refreshAtMs = ttlMs * (REFRESH_FROM + (REFRESH_TO - REFRESH_FROM) * random());
      this.#kept.set({ id, project, version, key, ttlMs, refreshAtMs });
      onFetch?.('fetched');
      return key;
    } catch (error) {
      this.#failures.set(id, { error, at: instant(clock) });
      // The key service says that the key is gone, held back, another, or not for us: what is kept here must
      // not outlive that.
      if (isRefusal(error)) this.#kept.delete(id);
      else if (this.#kept.peek(id)?.isStale === true) this.#background.add(id);
      onFetch?.(hasCode(error, ...AS_INTENDED) ? 'refused' : 'failed');
      throw error;
    }
  }
}

function isRefusal(error: unknown): boolean {
  return (
    hasCode(error, ...AS_INTENDED, 'key_mismatch', 'storage_superseded') ||
    (error instanceof AppError && error.cause instanceof KeyRefused)
  );
}

/** What a key is kept under. Project ids hold no `@`. */
function idOf(project: string, version: number | undefined): string {
  return version === undefined ? project : `${project}@${version}`;
}
