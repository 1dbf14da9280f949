import { ageMs, type Clock } from '@bundoc/shared/runtime/clock';
import { LRUCache } from 'lru-cache';
import type { LeasedKey } from '../kms/port.ts';

/** A cached key. */
export interface KeptKey {
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

/** Drift between the two clocks that triggers a check of every key, milliseconds. */
const CLOCK_DRIFT_MS_MAX = 1_000;
const S = 1_000;

/**
 * The keys of the cache: all keys of projects in use, and a bounded number of others, evicted least recently
 * used first. It indexes keys by the second of their expiry, so that no sweep visits all of them.
 *
 * One class, because a key that comes, or ends, enters or leaves all lists of keys at once.
 */
export class KeptKeys {
  readonly #clock: Clock;
  readonly #kept = new Map<string, KeptKey>();
  readonly #ofProject = new Map<string, Map<string, KeptKey>>();
  readonly #inUse = new Set<string>();
  readonly #spare: LRUCache<string, KeptKey>;
  /** Keys by the second of the monotonic clock in which they expire. */
  readonly #ends = new Map<number, Set<string>>();
  readonly #lost = new Set<string>();
  #wallAheadMs: number;

  /** @param spareMax maximum number of keys of projects that are not in use. */
  constructor(clock: Clock, spareMax: number) {
    this.#clock = clock;
    this.#wallAheadMs = clock.now() - clock.monotonic();
    this.#spare = new LRUCache({
      max: spareMax,
      dispose: (kept, _id, reason) => {
        if (reason === 'evict') this.#forget(kept);
      },
    });
  }

  get size(): number {
    return this.#kept.size;
  }

  /** Returns the key, and counts as a use of it. */
  use(id: string): KeptKey | undefined {
    const kept = this.#kept.get(id);
    if (kept?.isSpare === true) this.#spare.get(id);
    return kept;
  }

  /** Returns the key without counting as a use. */
  peek(id: string): KeptKey | undefined {
    return this.#kept.get(id);
  }

  /** Every key; those of projects in use come first. */
  *all(): Generator<KeptKey> {
    for (const kept of this.#kept.values()) if (!kept.isSpare) yield kept;
    yield* this.#spare.values();
  }

  of(project: string): readonly KeptKey[] {
    return [...(this.#ofProject.get(project)?.values() ?? [])];
  }

  set(kept: Omit<KeptKey, 'isSpare' | 'isStale'>): void {
    const { id, project } = kept;
    const before = this.#kept.get(id);
    if (before !== undefined) this.#ends.get(endOf(before))?.delete(id);
    const entry: KeptKey = { ...kept, isStale: false, isSpare: !this.#inUse.has(project) };
    this.#kept.set(id, entry);
    const versions = this.#ofProject.get(project);
    if (versions === undefined) this.#ofProject.set(project, new Map([[id, entry]]));
    else versions.set(id, entry);
    const ends = this.#ends.get(endOf(entry));
    if (ends === undefined) this.#ends.set(endOf(entry), new Set([id]));
    else ends.add(id);
    if (entry.isSpare) this.#spare.set(id, entry);
  }

  delete(id: string): void {
    const kept = this.#kept.get(id);
    if (kept === undefined) return;
    this.#forget(kept);
    this.#spare.delete(id);
  }

  clear(): void {
    for (const kept of [...this.#kept.values()]) this.delete(kept.id);
  }

  /** Keeps all keys of a project in the cache until it is released. */
  hold(project: string): void {
    this.#inUse.add(project);
    for (const kept of this.of(project)) {
      kept.isSpare = false;
      this.#spare.delete(kept.id);
    }
  }

  release(project: string): void {
    this.#inUse.delete(project);
    this.#lost.delete(project);
    for (const kept of this.of(project)) {
      kept.isSpare = true;
      this.#spare.set(kept.id, kept);
    }
  }

  isOver({ key, ttlMs }: KeptKey): boolean {
    return ageMs(this.#clock, key.requestedAt) >= ttlMs;
  }

  /** Drops every expired key. */
  dropEnded(): void {
    const nowMs = this.#clock.monotonic();
    const wallAheadMs = this.#clock.now() - nowMs;
    // The machine slept, or the clock was set: keys may expire in another second than predicted.
    if (Math.abs(wallAheadMs - this.#wallAheadMs) >= CLOCK_DRIFT_MS_MAX) {
      this.#wallAheadMs = wallAheadMs;
      this.#dropOver(this.#kept.keys());
    }
    for (const [second, ids] of this.#ends) {
      if (second * S > nowMs) continue;
      this.#ends.delete(second);
      this.#dropOver(ids);
    }
  }

  /** Projects in use that have lost a key since the last call. */
  takeLost(): readonly string[] {
    const lost = [...this.#lost];
    this.#lost.clear();
    return lost;
  }

  #dropOver(ids: Iterable<string>): void {
    for (const id of [...ids]) {
      const kept = this.#kept.get(id);
      if (kept !== undefined && this.isOver(kept)) this.delete(id);
    }
  }

  #forget(kept: KeptKey): void {
    const { id, project } = kept;
    this.#kept.delete(id);
    this.#ends.get(endOf(kept))?.delete(id);
    const versions = this.#ofProject.get(project);
    versions?.delete(id);
    if (versions?.size === 0) this.#ofProject.delete(project);
    if (this.#inUse.has(project)) this.#lost.add(project);
  }
}

/** The second of the monotonic clock by which a key has expired. */
function endOf({ key, ttlMs }: KeptKey): number {
  return Math.ceil((key.requestedAt.monotonicMs + ttlMs) / S);
}
