import { ageMs, type Clock } from '@bundoc/shared/runtime/clock';
import { LRUCache } from 'lru-cache';
import { isUnderOutsideKey } from '../kms/outside-keys.ts';
import type { LeasedKey } from '../kms/port.ts';

/** A cached key. */
export interface CachedKey {
  readonly id: string;
  readonly project: string;
  readonly version: number | undefined;
  readonly key: LeasedKey;
  /** Time until it expires, milliseconds. */
  readonly ttlMs: number;
  /** The age at which a key in use is refreshed. */
  readonly refreshAtMs: number;
  /** True when the key service may have changed it since. It stays usable until a refresh or its end. */
  isStale: boolean;
  /** Whether no open project uses it, so that it may be evicted. */
  isSpare: boolean;
}

/** Maximum numbers of keys of projects that are not in use. */
export interface SpareKeysMax {
  readonly own: number;
  readonly ofCustomers: number;
}

/** Drift between the two clocks that triggers a check of every key, milliseconds. */
const CLOCK_DRIFT_MS_MAX = 1_000;
const S = 1_000;

/**
 * The keys of the cache: all keys of projects in use, and a bounded number of others, evicted least recently
 * used first. It indexes keys by the second of their expiry, so that no sweep visits all of them.
 */
export class CachedKeys {
  readonly #clock: Clock;
  readonly #cached = new Map<string, CachedKey>();
  readonly #ofProject = new Map<string, Map<string, CachedKey>>();
  readonly #inUse = new Set<string>();
  readonly #spare: LRUCache<string, CachedKey>;
  /** Those that an outside key of a customer protects. */
  readonly #spareOfCustomers: LRUCache<string, CachedKey>;
  /** Keys by the second of the monotonic clock in which they expire. */
  readonly #ends = new Map<number, Set<string>>();
  readonly #lost = new Set<string>();
  #wallOffsetMs: number;
  /** The sum of 1 / `ttlMs` over all keys. */
  #endsPerMs = 0;

  /**
   * @param spareMax maximum number of keys of projects that are not in use; separately for those of
   *   customers.
   */
  constructor(clock: Clock, spareMax: SpareKeysMax) {
    this.#clock = clock;
    this.#wallOffsetMs = clock.now() - clock.monotonic();
    const dispose = (cached: CachedKey, _id: string, reason: string) => {
      if (reason === 'evict') this.#forget(cached);
    };
    this.#spare = new LRUCache({ max: spareMax.own, dispose });
    this.#spareOfCustomers = new LRUCache({ max: spareMax.ofCustomers, dispose });
  }

  get size(): number {
    return this.#cached.size;
  }

  /** Keys that would expire in a second on average. */
  get endsPerSecond(): number {
    return this.#endsPerMs * S;
  }

  /** Returns the key, and counts as a use of it. */
  use(id: string): CachedKey | undefined {
    const cached = this.#cached.get(id);
    if (cached?.isSpare === true) this.#spareOf(cached).get(id);
    return cached;
  }

  /** Returns the key without counting as a use. */
  peek(id: string): CachedKey | undefined {
    return this.#cached.get(id);
  }

  /** Every key; those of projects in use come first. */
  *all(): Generator<CachedKey> {
    for (const cached of this.#cached.values()) if (!cached.isSpare) yield cached;
    yield* this.#spare.values();
    yield* this.#spareOfCustomers.values();
  }

  of(project: string): readonly CachedKey[] {
    return [...(this.#ofProject.get(project)?.values() ?? [])];
  }

  set(cached: Omit<CachedKey, 'isSpare' | 'isStale'>): void {
    const { id, project } = cached;
    const before = this.#cached.get(id);
    if (before !== undefined) {
      this.#noteEnd(before, -1);
      this.#spareOf(before).delete(id);
    }
    const entry: CachedKey = { ...cached, isStale: false, isSpare: !this.#inUse.has(project) };
    this.#cached.set(id, entry);
    const versions = this.#ofProject.get(project);
    if (versions === undefined) this.#ofProject.set(project, new Map([[id, entry]]));
    else versions.set(id, entry);
    this.#noteEnd(entry, 1);
    if (entry.isSpare) this.#spareOf(entry).set(id, entry);
  }

  delete(id: string): void {
    const cached = this.#cached.get(id);
    if (cached === undefined) return;
    this.#forget(cached);
    this.#spareOf(cached).delete(id);
  }

  clear(): void {
    for (const cached of [...this.#cached.values()]) this.delete(cached.id);
  }

  /** Keeps all keys of a project in the cache until it is released. */
  hold(project: string): void {
    this.#inUse.add(project);
    for (const cached of this.of(project)) {
      cached.isSpare = false;
      this.#spareOf(cached).delete(cached.id);
    }
  }

  release(project: string): void {
    this.#inUse.delete(project);
    this.#lost.delete(project);
    for (const cached of this.of(project)) {
      cached.isSpare = true;
      this.#spareOf(cached).set(cached.id, cached);
    }
  }

  isExpired({ key, ttlMs }: CachedKey): boolean {
    return ageMs(this.#clock, key.requestedAt) >= ttlMs;
  }

  /** Drops every expired key. */
  dropExpired(): void {
    const nowMs = this.#clock.monotonic();
    const wallOffsetMs = this.#clock.now() - nowMs;
    // The machine slept, or the clock was set: keys may expire in another second than predicted.
    if (Math.abs(wallOffsetMs - this.#wallOffsetMs) >= CLOCK_DRIFT_MS_MAX) {
      this.#wallOffsetMs = wallOffsetMs;
      this.#dropExpiredOf(this.#cached.keys());
    }
    for (const [second, ids] of this.#ends) {
      if (second * S > nowMs) continue;
      this.#ends.delete(second);
      this.#dropExpiredOf(ids);
    }
  }

  /** Projects in use that have lost a key since the last call. */
  takeLost(): readonly string[] {
    const lost = [...this.#lost];
    this.#lost.clear();
    return lost;
  }

  #dropExpiredOf(ids: Iterable<string>): void {
    for (const id of [...ids]) {
      const cached = this.#cached.get(id);
      if (cached !== undefined && this.isExpired(cached)) this.delete(id);
    }
  }

  #spareOf({ key }: Pick<CachedKey, 'key'>): LRUCache<string, CachedKey> {
    return isUnderOutsideKey(key.wrapped) ? this.#spareOfCustomers : this.#spare;
  }

  #noteEnd(cached: CachedKey, count: 1 | -1): void {
    const { id, ttlMs } = cached;
    const end = endOf(cached);
    const ends = this.#ends.get(end) ?? new Set();
    if (count === 1) this.#ends.set(end, ends.add(id));
    else ends.delete(id);
    // Rounding errors end with the last key.
    this.#endsPerMs = this.#cached.size === 0 ? 0 : this.#endsPerMs + count / ttlMs;
  }

  #forget(cached: CachedKey): void {
    const { id, project } = cached;
    this.#cached.delete(id);
    this.#noteEnd(cached, -1);
    const versions = this.#ofProject.get(project);
    versions?.delete(id);
    if (versions?.size === 0) this.#ofProject.delete(project);
    if (this.#inUse.has(project)) this.#lost.add(project);
  }
}

/** The second of the monotonic clock by which a key has expired. */
function endOf({ key, ttlMs }: CachedKey): number {
  return Math.ceil((key.requestedAt.monotonicMs + ttlMs) / S);
}
