import { ageMs, type Clock } from '@bundoc/shared/runtime/clock';
import { LRUCache } from 'lru-cache';
import type { LeasedKey } from '../kms/port.ts';

/** A key in the cache. */
export interface KeptKey {
  readonly id: string;
  readonly project: string;
  readonly version: number | undefined;
  readonly key: LeasedKey;
  /** How long it is kept, milliseconds. */
  readonly ttlMs: number;
  /** The age at which a key in use is fetched again. */
  readonly refreshAtMs: number;
  /**
   * True when the key service may have changed it since; it serves until it is known better, at most to its
   * end.
   */
  isStale: boolean;
  /** Of no project in use: it may go when others come. */
  isSpare: boolean;
}

/** By how much the two clocks may part before every key is looked at, milliseconds. */
const CLOCKS_PART_MS = 1_000;
const S = 1_000;

/**
 * The keys of the cache: all keys of the projects in use, and a bounded number of others. Of those, the one
 * used longest ago goes first. Knows which keys end in which second, so that no sweep looks at all of them.
 *
 * One class, because a key that comes, or ends, enters or leaves all lists of keys at once.
 */
export class KeptKeys {
  readonly #clock: Clock;
  readonly #kept = new Map<string, KeptKey>();
  readonly #ofProject = new Map<string, Map<string, KeptKey>>();
  readonly #inUse = new Set<string>();
  readonly #spare: LRUCache<string, KeptKey>;
  /** Keys by the second of the monotonic clock in which they end. */
  readonly #ends = new Map<number, Set<string>>();
  readonly #lost = new Set<string>();
  #wallAheadMs: number;

  /** @param spareMax keys that are kept beside those of projects in use. */
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

  /** The key. This is a use of it. */
  use(id: string): KeptKey | undefined {
    const kept = this.#kept.get(id);
    if (kept?.isSpare === true) this.#spare.get(id);
    return kept;
  }

  /** The key. This does not count as a use. */
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

  /** Keeps all keys of a project, whatever others come, until it is released. */
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

  /** Forgets every key whose time is over. */
  dropEnded(): void {
    const nowMs = this.#clock.monotonic();
    const wallAheadMs = this.#clock.now() - nowMs;
    // The machine slept, or somebody set the clock: keys may end at another second than was expected.
    if (Math.abs(wallAheadMs - this.#wallAheadMs) >= CLOCKS_PART_MS) {
      this.#wallAheadMs = wallAheadMs;
      this.#dropOver(this.#kept.keys());
    }
    for (const [second, ids] of this.#ends) {
      if (second * S > nowMs) continue;
      this.#ends.delete(second);
      this.#dropOver(ids);
    }
  }

  /** Projects in use that have lost a key since this was asked the last time. */
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

/** The second of the monotonic clock in which a key is over, at the latest. */
function endOf({ key, ttlMs }: KeptKey): number {
  return Math.ceil((key.requestedAt.monotonicMs + ttlMs) / S);
}
