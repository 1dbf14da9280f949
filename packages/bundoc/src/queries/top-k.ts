/** An item that is sorted by a text, unit by unit, and has a size in bytes. */
export interface Sortable {
  readonly key: string;
  readonly bytes: number;
}

/**
 * The first of many items by their keys, up to a number and a size, but at least one. It holds only these
 * items and the one being added.
 */
export class TopK<T extends Sortable> {
  readonly #limit: number;
  readonly #bytesMax: number;
  readonly #kept: T[] = [];
  #bytes = 0;
  #isFull = false;

  constructor(limit: number, bytesMax: number) {
    this.#limit = limit;
    this.#bytesMax = bytesMax;
  }

  /** Whether an item was dropped. */
  get isFull(): boolean {
    return this.#isFull;
  }

  /** Bytes of the kept items. */
  get bytes(): number {
    return this.#bytes;
  }

  /** In key order. */
  get items(): readonly T[] {
    return this.#kept;
  }

  /** Whether an item with this key would be kept. */
  wants(key: string): boolean {
    const last = this.#kept.at(-1);
    if (!this.#isFull || last === undefined || key < last.key) return true;
    return false;
  }

  /** @returns the dropped items. */
  add(item: T): readonly T[] {
    const dropped: T[] = [];
    const kept = this.#kept;
    let low = 0;
    let high = kept.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((kept[middle] as T).key < item.key) low = middle + 1;
      else high = middle;
    }
    kept.splice(low, 0, item);
    this.#bytes += item.bytes;
    while (kept.length > 1 && (kept.length > this.#limit || this.#bytes > this.#bytesMax)) {
      const last = kept.pop() as T;
      dropped.push(last);
      this.#bytes -= last.bytes;
      this.#isFull = true;
    }
    return dropped;
  }
}
