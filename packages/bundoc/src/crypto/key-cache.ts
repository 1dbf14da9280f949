import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { ageMs, type Clock, type Instant, instant } from '@bundoc/shared/runtime/clock';
import { LRUCache } from 'lru-cache';
import { isUnderOutsideKey, type OutsideKeys } from '../kms/outside-keys.ts';
import { KeyRefused, type KeyService, type LeasedKey } from '../kms/port.ts';
import { BackgroundFetches } from './background-fetches.ts';
import { type CachedKey, CachedKeys, type SpareKeysMax } from './cached-keys.ts';

export interface KeyCacheOptions {
  readonly keys: KeyService;
  readonly clock: Clock;
  /** What is known of customers' outside keys, as those who ask the key service know it. */
  readonly outside?: OutsideKeys;
  /** Maximum time that a key is cached, milliseconds; a shorter lease wins. */
  readonly ttlMs: number;
  /**
   * Maximum number of cached keys of projects that are not held; the least recently used one is evicted
   * first.
   */
  readonly spareKeysMax?: SpareKeysMax;
  /** Called at the end of every fetch. */
  readonly onFetch?: (outcome: FetchOutcome) => void;
  /** From 0 to 1: draws the moment at which a key in use is refreshed. */
  readonly random?: () => number;
}

/**
 * `refused`: the key does not exist, was disabled or destroyed on purpose, or belongs to another storage.
 * `failed`: any other error.
 */
export const FETCH_OUTCOMES = ['fetched', 'refused', 'failed'] as const;
export type FetchOutcome = (typeof FETCH_OUTCOMES)[number];

/** Refusals that follow from an intended change. */
const INTENDED_REFUSALS = [
  'key_not_found',
  'key_version_destroyed',
  'project_disabled',
  'project_deleting',
  'project_destroyed',
  'project_elsewhere',
  'key_unheld',
] as const;

/**
 * A key in use is refreshed between these fractions of its lifetime. The moment is drawn once for each key.
 */
const REFRESH_FROM = 0.6;
const REFRESH_TO = 0.9;
const REFRESH_PART = REFRESH_TO - REFRESH_FROM;
/** Minimum rate of background fetches. With many keys, the rate spreads their refreshes evenly. */
const BACKGROUND_PER_SECOND_MIN = 20;
/** Time that a failed fetch is cached, to keep an outage from causing a storm of requests. */
const FAILURE_MEMORY_MS = 1_000;
/**
 * Each fetch of a customer's key is a call of his service, so these stay until their leases end. A key takes
 * a kilobyte.
 */
const SPARE_KEYS_MAX: SpareKeysMax = { own: 1_000, ofCustomers: 20_000 };
/** Maximum attempts of one fetch whose answer may be older than an event. */
const TRIES_MAX = 3;

/** A fetch in progress. */
interface Fetch {
  readonly key: Promise<LeasedKey>;
  /** Marks the answer as possibly older than an event. */
  readonly markOutdated: () => void;
}

/**
 * The DEKs of the projects in use, for 15 minutes at most, and of some others.
 *
 * The lifetime is strict. It starts before the request for the key, runs on both the wall clock and the
 * monotonic clock, and no key is returned after it. Concurrent callers share one fetch, which no caller can
 * cancel.
 *
 * A key in use is refreshed between 60 % and 90 % of its lifetime. If that fails, the current key stays
 * usable until its end. These fetches share a token bucket with those that follow a gap in the events, and
 * few run at a time, so that others can open projects. Those of customers' keys are apart, because their
 * services may hang. Fetches in progress are outside the LRU, so they cannot be evicted (ADR 0004).
 */
export class KeyCache {
  readonly #options: KeyCacheOptions;
  readonly #cached: CachedKeys;
  readonly #fetching = new Map<string, Fetch>();
  readonly #failures = new LRUCache<string, { error: unknown; at: Instant }>({ max: 1_000 });
  readonly #background: BackgroundFetches;
  readonly #backgroundOfCustomers: BackgroundFetches;

  constructor(options: KeyCacheOptions) {
    this.#options = options;
    this.#cached = new CachedKeys(options.clock, options.spareKeysMax ?? SPARE_KEYS_MAX);
    const ports = {
      clock: options.clock,
      turnOf: (id: string) => this.#turnOf(id),
      // Keys of customers may have shorter lifetimes than others.
      perSecond: () => Math.max(BACKGROUND_PER_SECOND_MIN, this.#cached.endsPerSecond / REFRESH_PART),
      fetch: (id: string) => this.#fetchAgain(id),
    };
    const { outside } = options;
    const groupOf = outside && ((id: string) => outside.of(dekNameOf(this.#cached.peek(id)?.project ?? '')));
    this.#background = new BackgroundFetches(ports);
    this.#backgroundOfCustomers = new BackgroundFetches({ ...ports, ...defined({ groupOf }) });
  }

  /** Number of cached keys. */
  get size(): number {
    return this.#cached.size;
  }

  /** Fetches that wait for their turn in the background. */
  get fetchesWaiting(): number {
    return this.#background.size + this.#backgroundOfCustomers.size;
  }

  /** Keeps all keys of a project in the cache until {@link release}. They still expire. */
  hold(project: string): void {
    this.#cached.hold(project);
  }

  release(project: string): void {
    this.#cached.release(project);
  }

  /** Notes that an outside key of a customer protects the project's key as well. */
  expectOutside(project: string): void {
    this.#options.outside?.expect(dekNameOf(project));
  }

  /** Projects that are held and have lost a key since the last call. */
  takeLost(): readonly string[] {
    return this.#cached.takeLost();
  }

  /** Returns the cached key while it is usable. Starts a background refresh when it is due. */
  peek(project: string, version?: number): LeasedKey | undefined {
    const id = idOf(project, version);
    const cached = this.#cached.use(id);
    if (cached === undefined) return undefined;
    const age = ageMs(this.#options.clock, cached.key.requestedAt);
    if (age >= cached.ttlMs) {
      this.#cached.delete(id);
      return undefined;
    }
    if (age >= cached.refreshAtMs && !this.#backgroundOf(cached).has(id)) this.#refresh(cached);
    return cached.key;
  }

  /** True while the cached key is usable. Unlike {@link peek}, this does not count as a use. */
  has(project: string, version?: number): boolean {
    const cached = this.#cached.peek(idOf(project, version));
    return cached !== undefined && !this.#cached.isExpired(cached);
  }

  /**
   * The end of the cached key's lifetime by the wall clock; undefined when {@link has} is false. This does
   * not count as a use.
   */
  usableUntil(project: string): number | undefined {
    const cached = this.#cached.peek(idOf(project, undefined));
    if (cached === undefined || this.#cached.isExpired(cached)) return undefined;
    return this.#options.clock.now() + cached.ttlMs - ageMs(this.#options.clock, cached.key.requestedAt);
  }

  /**
   * Returns the key, from the cache or from the key service.
   *
   * @param version the current one when absent.
   * @throws AppError as {@link KeyService.exportKey}; `overloaded` when there was no capacity in time.
   */
  async get(project: string, version?: number): Promise<LeasedKey> {
    const key = this.peek(project, version);
    if (key !== undefined) return key;
    const failure = this.#recentFailure(idOf(project, version));
    if (failure !== undefined) throw failure.error;
    return this.#fetch(project, version);
  }

  /**
   * Rotates the key to a new version and fetches it. The new version replaces the cached one, so that later
   * callers see the change.
   */
  async rotate(project: string, version: number): Promise<void> {
    await this.#options.keys.rotateKey(dekNameOf(project), version);
    await this.#fetch(project, undefined);
  }

  /**
   * Creates the project's key unless it exists.
   *
   * @returns whether this call created it. @throws AppError as {@link get}; a failure is cached in the same
   *   way.
   */
  async create(project: string): Promise<boolean> {
    const failure = this.#recentFailure(project);
    // Creating the key resolves these two refusals: that there is no key, and that no storage holds it.
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
   * Makes this storage the holder of a key that no storage holds, and fetches it. @throws AppError as {@link
   * get}.
   */
  async claim(project: string): Promise<LeasedKey> {
    await this.#options.keys.claimKey(dekNameOf(project));
    this.#failures.delete(project);
    return this.get(project);
  }

  /**
   * Drops expired keys and starts background fetches whose turn has come. Expired keys are never returned
   * anyway; this frees their memory. Call it about once a second.
   */
  sweep(): void {
    this.#cached.dropExpired();
    this.#fetchInBackground();
  }

  /**
   * Fetches the current version again, because it may have changed. The cached one stays usable until then.
   */
  revalidate(project: string): void {
    this.#fetching.get(project)?.markOutdated();
    const cached = this.#cached.peek(project);
    if (cached === undefined) return;
    cached.isStale = true;
    this.#fetch(project, undefined).catch(() => undefined); // Still stale, so a background fetch follows.
  }

  /**
   * {@link revalidate} for every key and version, in the background. A key that the service refuses is
   * dropped.
   */
  revalidateAll(): void {
    this.#options.outside?.allChanged();
    for (const { markOutdated } of this.#fetching.values()) markOutdated();
    for (const cached of this.#cached.all()) {
      cached.isStale = true;
      this.#backgroundOf(cached).add(cached.id);
    }
    this.#fetchInBackground();
  }

  /**
   * Drops every version of the project's key, and its cached failures. A fetch in progress may be outdated
   * and is repeated.
   */
  evict(project: string): void {
    this.#options.outside?.changed(dekNameOf(project));
    const isOfProject = (id: string) => id === project || id.startsWith(`${project}@`);
    for (const [id, { markOutdated }] of this.#fetching) if (isOfProject(id)) markOutdated();
    for (const { id } of this.#cached.of(project)) this.#cached.delete(id);
    for (const id of [...this.#failures.keys()]) if (isOfProject(id)) this.#failures.delete(id);
  }

  /** Drops every key. Fetches in progress are repeated. */
  evictAll(): void {
    for (const { markOutdated } of this.#fetching.values()) markOutdated();
    this.#cached.clear();
    this.#failures.clear();
  }

  /** Queues a key for a background fetch. */
  #refresh(cached: CachedKey): void {
    const { id } = cached;
    if (this.#fetching.has(id) || this.#recentFailure(id) !== undefined) return;
    const background = this.#backgroundOf(cached);
    background.add(id);
    background.start();
  }

  #backgroundOf({ key }: CachedKey): BackgroundFetches {
    return isUnderOutsideKey(key.wrapped) ? this.#backgroundOfCustomers : this.#background;
  }

  #fetchInBackground(): void {
    this.#background.start();
    this.#backgroundOfCustomers.start();
  }

  #turnOf(id: string): 'now' | 'later' | 'never' {
    const cached = this.#cached.peek(id);
    if (cached === undefined) return 'never';
    const isDue = ageMs(this.#options.clock, cached.key.requestedAt) >= cached.refreshAtMs;
    if (!cached.isStale && !isDue) return 'never';
    return this.#fetching.has(id) || this.#recentFailure(id) !== undefined ? 'later' : 'now';
  }

  async #fetchAgain(id: string): Promise<void> {
    const cached = this.#cached.peek(id);
    if (cached !== undefined) await this.#fetch(cached.project, cached.version);
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
    let isOutdated = false;
    const ask = async () => {
      for (let tries = 0; tries < TRIES_MAX; tries++) {
        isOutdated = false;
        const key = await this.#options.keys.exportKey(dekNameOf(project), version);
        if (!isOutdated) return key;
      }
      throw new AppError('kms_unavailable', { retryAfterS: 1 });
    };
    const key = this.#fetchAndKeep(project, version, ask).finally(() => this.#fetching.delete(id));
    const markOutdated = () => {
      isOutdated = true;
    };
    this.#fetching.set(id, { key, markOutdated });
    return key;
  }

  async #fetchAndKeep(
    project: string,
    version: number | undefined,
    ask: () => Promise<LeasedKey>,
  ): Promise<LeasedKey> {
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
      const refreshAtMs = ttlMs * (REFRESH_FROM + REFRESH_PART * random());
      this.#cached.set({ id, project, version, key, ttlMs, refreshAtMs });
      onFetch?.('fetched');
      return key;
    } catch (error) {
      this.#failures.set(id, { error, at: instant(clock) });
      // The key service refuses the key: it was destroyed or disabled, or it differs or belongs to another
      // storage. The cached key must not outlive the refusal.
      const cached = this.#cached.peek(id);
      if (isRefusal(error)) this.#cached.delete(id);
      else if (cached?.isStale === true) this.#backgroundOf(cached).add(id);
      onFetch?.(hasCode(error, ...INTENDED_REFUSALS) ? 'refused' : 'failed');
      throw error;
    }
  }
}

function isRefusal(error: unknown): boolean {
  return (
    hasCode(error, ...INTENDED_REFUSALS, 'key_mismatch', 'storage_superseded') ||
    (error instanceof AppError && error.cause instanceof KeyRefused)
  );
}

/** The cache id of a key. Project ids contain no `@`. */
function idOf(project: string, version: number | undefined): string {
  return version === undefined ? project : `${project}@${version}`;
}
