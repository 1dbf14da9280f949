interface Queued<T> {
  readonly item: T;
  /** Bytes that it may take; below zero it took more than its share. */
  credit: number;
}

/**
 * Takes turns among those who wait, by bytes. Each round gives equal shares; a taker of more waits until
 * later rounds have paid for it (deficit round robin, M. Shreedhar and G. Varghese, 1995; with debt in place
 * of a look at what comes next).
 */
export class FairQueue<T> {
  readonly #shareMin: number;
  #ring: Queued<T>[] = [];
  readonly #in = new Map<T, Queued<T>>();

  /** @param shareMin bytes that a round gives at least. */
  constructor(shareMin: number) {
    this.#shareMin = shareMin;
  }

  get size(): number {
    return this.#in.size;
  }

  /** Joins at the end, unless it waits already. */
  add(item: T): void {
    if (this.#in.has(item)) return;
    const queued = { item, credit: 0 };
    this.#in.set(item, queued);
    this.#ring.push(queued);
  }

  remove(item: T): void {
    if (!this.#in.delete(item)) return;
    this.#ring = this.#ring.filter((queued) => queued.item !== item);
  }

  /** Drops those for whom `isKept` says no. */
  keep(isKept: (item: T) => boolean): void {
    this.#ring = this.#ring.filter(({ item }) => {
      const kept = isKept(item);
      if (!kept) this.#in.delete(item);
      return kept;
    });
  }

  items(): T[] {
    return this.#ring.map(({ item }) => item);
  }

  /**
   * One round: each who waits is asked once, until `bytes` are taken. Who comes after that is the first of
   * the next round.
   *
   * @param take gives what it took in bytes, at most `max` unless it cannot be less; undefined leaves the
   * queue.
   */
  round(
    bytes: number,
    isFull: (left: number) => boolean,
    take: (item: T, max: number) => number | undefined,
  ): void {
    const share = Math.max(this.#shareMin, Math.floor(bytes / Math.max(1, this.#ring.length)));
    let left = bytes;
    const asked: Queued<T>[] = [];
    let at = 0;
    for (; at < this.#ring.length && !isFull(left); at++) {
      const queued = this.#ring[at] as Queued<T>;
      queued.credit = Math.min(share, queued.credit + share);
      if (queued.credit <= 0) {
        asked.push(queued);
        continue;
      }
      const taken = take(queued.item, Math.min(queued.credit, left));
      if (taken === undefined) {
        this.#in.delete(queued.item);
        continue;
      }
      queued.credit -= taken;
      left -= taken;
      asked.push(queued);
    }
    this.#ring = [...this.#ring.slice(at), ...asked];
  }
}
