/** Something that is sorted by a text, unit by unit, and weighs some bytes. */
export interface Sortable {
  readonly key: string;
  readonly bytes: number;
}

/**
 * The first of many by their keys: as many as fit into a number and into bytes, one in any case. Holds no
 * more than that, and the one that did not fit.
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

  /** Something was left out. */
  get isFull(): boolean {
    return this.#isFull;
  }

  /** Bytes of what is kept. */
  get bytes(): number {
    return this.#bytes;
  }

  /** In order. */
  get items(): readonly T[] {
    return this.#kept;
  }

  /** Whether one with this key would be kept. */
  wants(key: string): boolean {
    const last = this.#kept.at(-1);
    if (!this.#isFull || last === undefined || key < last.key) return true;
    return false;
  }

  /** @returns what is kept no longer. */
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
