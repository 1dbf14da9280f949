import { LRUCache } from 'lru-cache';

interface Entry<V> {
  readonly key: string;
  readonly value: V;
}

/**
 * Maximum fraction of the whole for entries that were used again. The rest is for entries that were used
 * once.
 */
const PROTECTED_SHARE = 0.8;

/**
 * An eviction order by segmented LRU: entries that were used once are evicted first, so a scan only evicts
 * its own entries. The caller evicts, because some entries may be in use.
 */
export class SegmentedLru<V extends object> {
  readonly #bytesMax: number;
  readonly #probation = newSegment<V>();
  readonly #protected = newSegment<V>();
  /** The entry used last, if it was used before: most uses repeat it and change nothing. */
  #latest: string | undefined;

  /** @param bytesMax of the whole; it only limits the segment of entries that were used again. */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** @param bytes a whole number above 0. */
  add(key: string, value: V, bytes: number): void {
    this.#probation.set(key, { key, value }, { size: bytes });
  }

  used(key: string): void {
    if (key === this.#latest) return;
    const entry = this.#probation.peek(key);
    if (entry === undefined) {
      if (this.#protected.get(key) !== undefined) this.#latest = key;
      return;
    }
    const { size } = this.#probation.info(key) ?? {};
    this.#probation.delete(key);
    this.#protected.set(key, entry, { size: size ?? 1 });
    this.#latest = key;
    this.#shrink();
  }

  /** Changes the size of an entry, and makes it the most recent one of its segment. */
  resize(key: string, bytes: number): void {
    for (const segment of [this.#probation, this.#protected]) {
      const entry = segment.peek(key);
      // A new object, because lru-cache ignores the size for an identical value.
      if (entry !== undefined) segment.set(key, { ...entry }, { size: bytes });
    }
    this.#latest = undefined;
    this.#shrink();
  }

  delete(key: string): void {
    if (this.#latest === key) this.#latest = undefined;
    this.#probation.delete(key);
    this.#protected.delete(key);
  }

  /** The next entry to evict among those that `canBeSpared` allows. */
  next(canBeSpared: (value: V) => boolean): V | undefined {
    for (const segment of [this.#probation, this.#protected])
      for (const entry of segment.rvalues())
        if (entry !== undefined && canBeSpared(entry.value)) return entry.value;
    return undefined;
  }

  /** While the segment of reused entries is too large, its oldest entry moves to the other segment. */
  #shrink(): void {
    const bytesMax = this.#bytesMax * PROTECTED_SHARE;
    while (this.#protected.size > 1 && this.#protected.calculatedSize > bytesMax) {
      const [key] = this.#protected.rkeys();
      const size = key === undefined ? undefined : this.#protected.info(key)?.size;
      const entry = this.#protected.pop();
      if (entry !== undefined) this.#probation.set(entry.key, entry, { size: size ?? 1 });
    }
  }
}

/** The caller enforces the limits, so lru-cache has none. */
function newSegment<V>(): LRUCache<string, Entry<V>> {
  return new LRUCache({ maxSize: Number.MAX_SAFE_INTEGER });
}
