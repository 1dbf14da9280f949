import { LRUCache } from 'lru-cache';

interface Entry<V> {
  readonly key: string;
  readonly value: V;
}

/** Part of the whole that what was used again may fill. The rest is left to what was used once. */
const USED_AGAIN_SHARE = 0.8;

/**
 * An order in which to spare things, by segmented LRU: what was used once goes first. So a scan evicts
 * nothing but what it brought. It evicts nothing by itself, since not everything can be spared at any time.
 */
export class SegmentedLru<V extends object> {
  readonly #bytesMax: number;
  readonly #once = newSegment<V>();
  readonly #again = newSegment<V>();
  /** The one used last, if it was used before: most uses are of it, and change nothing. */
  #latest: string | undefined;

  /** @param bytesMax of the whole; it bounds the part of what was used again, and nothing else. */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** @param bytes a whole number above 0. */
  add(key: string, value: V, bytes: number): void {
    this.#once.set(key, { key, value }, { size: bytes });
  }

  used(key: string): void {
    if (key === this.#latest) return;
    const entry = this.#once.peek(key);
    if (entry === undefined) {
      if (this.#again.get(key) !== undefined) this.#latest = key;
      return;
    }
    const { size } = this.#once.info(key) ?? {};
    this.#once.delete(key);
    this.#again.set(key, entry, { size: size ?? 1 });
    this.#latest = key;
    this.#shrink();
  }

  /**
   * What it holds takes another number of bytes. It counts as used last among those that were used as often.
   */
  resize(key: string, bytes: number): void {
    for (const segment of [this.#once, this.#again]) {
      const entry = segment.peek(key);
      // A new object: the size of the very same value is not looked at again.
      if (entry !== undefined) segment.set(key, { ...entry }, { size: bytes });
    }
    this.#latest = undefined;
    this.#shrink();
  }

  delete(key: string): void {
    if (this.#latest === key) this.#latest = undefined;
    this.#once.delete(key);
    this.#again.delete(key);
  }

  /** What to spare next, among what can be spared. */
  next(canBeSpared: (value: V) => boolean): V | undefined {
    for (const segment of [this.#once, this.#again])
      for (const entry of segment.rvalues())
        if (entry !== undefined && canBeSpared(entry.value)) return entry.value;
    return undefined;
  }

  /** What was used longest ago of what was used again gives up its place there, when there is too much. */
  #shrink(): void {
    const bytesMax = this.#bytesMax * USED_AGAIN_SHARE;
    while (this.#again.size > 1 && this.#again.calculatedSize > bytesMax) {
      const [key] = this.#again.rkeys();
      const size = key === undefined ? undefined : this.#again.info(key)?.size;
      const entry = this.#again.pop();
      if (entry !== undefined) this.#once.set(entry.key, entry, { size: size ?? 1 });
    }
  }
}

/** The limits are kept by the caller, so lru-cache has none. */
function newSegment<V>(): LRUCache<string, Entry<V>> {
  return new LRUCache({ maxSize: Number.MAX_SAFE_INTEGER });
}
